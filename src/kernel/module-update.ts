/**
 * Replacing the module while TDs live (Linux host rules 1.12): all online CPUs in lockstep shut the old one down, install
 * the new one, initialise it and have it take over.
 */
import { PAGE_4K } from '../abi/address.ts';
import { KernelError, type Reason } from '../abi/errno.ts';
import { hasFeature } from '../abi/features.ts';
import { hostLeafName, SEAMLDR, TDH } from '../abi/leaves.ts';
import { encodeSeamldrParams, SEAMLDR_MAX_MODULE_PAGES, SEAMLDR_SCENARIO } from '../abi/seamldr-params.ts';
import { formatStatus } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import { type Cpu, firstOnline, onlineCpus } from './cpu.ts';
import type { HostKernel } from './host-kernel.ts';
import { seamcall, seamldrCall, setOperands } from './seamcall.ts';
import { readSysinfo } from './sysinfo.ts';
import type { TdxEnabler } from './tdx-enabler.ts';

/** A module image as a file brings it: the signed statement and the module, in whole pages. @public */
export interface ModuleImageFile {
  readonly sigstruct: Uint8Array;
  readonly pages: readonly Uint8Array[];
}

/**
 * Replaces the module by `image`. Throws ENODEV without an initialised module, EINVAL where module, processor or image do
 * not allow it, EBUSY while a CPU is offline, ENOMEM, EIO; from SEAMLDR.INSTALL on a failure leaves no module.
 * @internal
 */
export function updateModule(kernel: HostKernel, tdx: TdxEnabler, image: ModuleImageFile): void {
  const handoff = checkMayUpdate(kernel, image);
  const cpu = firstOnline(kernel.cpus);
  const pages = takePages(kernel, cpu, image);
  try {
    const refused = call(cpu, TDH.sysShutdown, handoff);
    if (refused !== null) throw new KernelError('EIO', refused.code, refused.text, { ...refused.data });
    const failed = takeOver(onlineCpus(kernel.cpus), pages[0]!);
    if (failed !== null) {
      tdx.lost(failed);
      kernel.log.err(failed.text, failed.code);
      throw new KernelError('EIO', failed.code, failed.text, { ...failed.data });
    }
  } finally {
    for (const page of pages) kernel.allocator.freePages(page / PAGE_4K, 1);
  }
  tdx.sysinfo = readSysinfo(cpu, kernel.log, kernel.policy.trustCmrCount);
  kernel.log.info('module updated', 'module-updated');
}

/** Returns the version of the data that the old module hands over. */
function checkMayUpdate({ sysinfo, state, detection, cpus }: HostKernel, image: ModuleImageFile): number {
  if (sysinfo === null || state !== 'initialized') {
    throw new KernelError('ENODEV', 'tdx-not-initialized', 'there is no initialised module to update');
  }
  const { moduleHv } = sysinfo.handoff;
  if (!hasFeature(sysinfo.features.features0, 'TD_PRESERVING') || moduleHv === undefined) {
    throw new KernelError('EINVAL', 'no-td-preserving', 'the module cannot hand TDs over to another one');
  }
  if (detection?.errata.seamretInvalidatesVmcs === true) {
    throw new KernelError('EINVAL', 'seamret-erratum', 'SEAMRET invalidates the current VMCS on this CPU');
  }
  const sizes = [image.sigstruct, ...image.pages].map(({ length }) => length);
  const count = image.pages.length;
  if (sizes.some((size) => size !== PAGE_4K) || count === 0 || count > SEAMLDR_MAX_MODULE_PAGES) {
    throw new KernelError(
      'EINVAL',
      'module-image-size',
      `a module image is a page with its signature and 1 to ${SEAMLDR_MAX_MODULE_PAGES} pages, not ${sizes.join('+')} bytes`,
      { sizes },
    );
  }
  const offline = cpus.filter((cpu) => !cpu.online).map(({ index }) => index);
  if (offline.length > 0) {
    const text = `CPU ${offline.join(', ')} is offline, and the loader waits for every processor`;
    throw new KernelError('EBUSY', 'cpu-offline', text, { cpus: offline });
  }
  return moduleHv;
}

/** From here on there is no way back. Returns why it failed, or null. */
function takeOver(cpus: readonly Cpu[], params: number): Reason | null {
  for (const cpu of cpus) {
    setOperands(cpu, params);
    const status = seamldrCall(cpu, SEAMLDR.install);
    if (status !== STATUS.TDX_SUCCESS) return failure('SEAMLDR.INSTALL', status);
  }
  const [first] = cpus as readonly [Cpu, ...Cpu[]];
  const failed = call(first, TDH.sysInit);
  if (failed !== null) return failed;
  for (const cpu of cpus) {
    const refused = call(cpu, TDH.sysLpInit);
    if (refused !== null) return refused;
  }
  return call(first, TDH.sysUpdate);
}

/** Addresses of the parameters, the signed statement and the pages of the image, in this order. */
function takePages({ allocator }: HostKernel, cpu: Cpu, image: ModuleImageFile): readonly number[] {
  const pages: number[] = [];
  for (const bytes of [new Uint8Array(PAGE_4K), image.sigstruct, ...image.pages]) {
    const pfn = allocator.allocPages(0, { purpose: 'module-image', node: cpu.lp.node });
    if (pfn === null) {
      for (const page of pages) allocator.freePages(page / PAGE_4K, 1);
      throw new KernelError('ENOMEM', 'module-image', 'no page is free for the module’s image');
    }
    cpu.lp.store(pfn * PAGE_4K, bytes);
    pages.push(pfn * PAGE_4K);
  }
  const [params, sigstruct, ...modulePages] = pages as [number, number, ...number[]];
  cpu.lp.store(
    params,
    encodeSeamldrParams({
      version: 0,
      scenario: SEAMLDR_SCENARIO.update,
      sigstruct: BigInt(sigstruct),
      modulePages: modulePages.map(BigInt),
    }),
  );
  return pages;
}

function call(cpu: Cpu, leaf: number, rcx = 0): Reason | null {
  setOperands(cpu, rcx);
  const status = seamcall(cpu, leaf);
  return status === STATUS.TDX_SUCCESS ? null : failure(hostLeafName(leaf), status);
}

function failure(leafName: string, status: bigint): Reason {
  const statusName = formatStatus(status);
  return {
    code: 'module-update-failed',
    text: `the module was not updated: ${leafName} answered ${statusName}`,
    data: { leafName, status, statusName },
  };
}
