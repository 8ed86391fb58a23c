/**
 * Replacing the module while TDs live (Linux host rules 1.12), as the kernel does it in lockstep on all online CPUs:
 * shut the old one down, install the new one, initialise it and have it take over.
 */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError, type Reason } from '../../../abi/errno.ts';
import { hostLeafName, SEAMLDR, TDH } from '../../../abi/leaves.ts';
import { R8, RDX, regNumber } from '../../../abi/registers.ts';
import { encodeSeamldrParams, SEAMLDR_SCENARIO } from '../../../abi/seamldr-params.ts';
import { formatStatus } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { type Cpu, firstOnline, onlineCpus } from '../../../kernel/cpu.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import { seamcall, seamldrCall, setOperands } from '../../../kernel/seamcall.ts';
import { moduleImage } from '../../../module/module-image.ts';
import { findRelease } from '../../../module/releases.ts';
import { EventEnd } from './outcome.ts';

/** Global metadata field MODULE_HV. */
const MODULE_HV = 0x8900_0001_0000_0000n;

/**
 * Replaces the module of `kernel` by `release`. Throws KernelError while the old one is untouched (ENODEV, EINVAL,
 * ENOMEM, EIO), EventEnd `failed` when it is gone: TDX cannot be used any more then.
 * @internal
 */
export function updateModule(kernel: HostKernel, release: string): void {
  const { detection } = kernel;
  if (kernel.state !== 'initialized')
    throw new KernelError('ENODEV', 'tdx-not-initialized', 'there is no initialised module to update');
  if (detection?.errata.seamretInvalidatesVmcs === true)
    throw new KernelError('EINVAL', 'seamret-erratum', 'SEAMRET invalidates the current VMCS on this CPU');
  const cpu = firstOnline(kernel.cpus);
  const moduleHv = readHandoffVersion(cpu);
  const pages = takePages(kernel, cpu, release);
  try {
    expect(call(cpu, TDH.sysShutdown, moduleHv), hostLeafName(TDH.sysShutdown), refuse);
    takeOver(kernel, cpu, pages[0]!);
  } finally {
    for (const page of pages) kernel.allocator.freePages(page / PAGE_4K, 1);
  }
}

/** From here on there is no way back. */
function takeOver(kernel: HostKernel, cpu: Cpu, params: number): void {
  const cpus = onlineCpus(kernel.cpus);
  for (const one of cpus) {
    setOperands(one, params);
    expect(seamldrCall(one, SEAMLDR.install), 'SEAMLDR.INSTALL', fail);
  }
  expect(call(cpu, TDH.sysInit), hostLeafName(TDH.sysInit), fail);
  for (const one of cpus) expect(call(one, TDH.sysLpInit), hostLeafName(TDH.sysLpInit), fail);
  expect(call(cpu, TDH.sysUpdate), hostLeafName(TDH.sysUpdate), fail);
}

/** Format of the hand-off data that the module writes; asked anew, since an update before may have changed it. */
function readHandoffVersion(cpu: Cpu): number {
  setOperands(cpu);
  cpu.lp.regs.q[RDX] = MODULE_HV;
  if (seamcall(cpu, TDH.sysRd) === STATUS.TDX_SUCCESS) return regNumber(cpu.lp.regs, R8);
  throw new KernelError('EINVAL', 'no-td-preserving', 'the module cannot hand TDs over to another one');
}

/** Addresses of the parameters, the signed statement and the pages of the image, in this order. */
function takePages(kernel: HostKernel, cpu: Cpu, release: string): readonly number[] {
  const image = moduleImage(findRelease(release)!);
  const contents = [new Uint8Array(PAGE_4K), image.sigstruct, ...image.pages];
  const pages = contents.map((bytes, i) => {
    const pfn = kernel.allocator.allocPages(0, { purpose: 'module-image' });
    if (pfn === null)
      throw new KernelError('ENOMEM', 'no-page', `no page is free for page ${i} of the module's image`);
    cpu.lp.store(pfn * PAGE_4K, bytes);
    return pfn * PAGE_4K;
  });
  const [params = 0, sigstruct = 0, ...modulePages] = pages;
  const encoded = encodeSeamldrParams({
    version: 0,
    scenario: SEAMLDR_SCENARIO.update,
    sigstruct: BigInt(sigstruct),
    modulePages: modulePages.map(BigInt),
  });
  cpu.lp.store(params, encoded);
  return pages;
}

function call(cpu: Cpu, leaf: number, rcx = 0): bigint {
  setOperands(cpu, rcx);
  return seamcall(cpu, leaf);
}

function expect(status: bigint, name: string, otherwise: (reason: Reason) => never): void {
  if (status === STATUS.TDX_SUCCESS) return;
  const statusName = formatStatus(status);
  const data = { leaf: name, status: statusName };
  otherwise({
    code: 'module-update-failed',
    text: `the module was not updated: ${name} answered ${statusName}`,
    data,
  });
}

function refuse({ code, text, data }: Reason): never {
  throw new KernelError('EIO', code, text, { ...data });
}

function fail(reason: Reason): never {
  throw new EventEnd('failed', reason);
}
