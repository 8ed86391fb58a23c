/** Making a TD (Linux host rules 2.2, KVM_TDX_INIT_VM): KeyID, TDR, keys on every package, TDCS, and its parameters. */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { TDH } from '../../../abi/leaves.ts';
import { RCX } from '../../../abi/registers.ts';
import { formatStatus } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { type Cpu, firstOnlinePerPackage } from '../../../kernel/cpu.ts';
import { bugOn, isInvalidOperand, KVM_PREFIX, tdCall } from './td-call.ts';
import { reclaimControlPages, releaseKeyId } from './teardown.ts';
import type { TrustDomain } from './trust-domain.ts';

/** A refusal by the module that user space hears of in hw_error. @internal */
export class ModuleRefusal extends KernelError {
  readonly status: bigint;

  constructor(status: bigint, rcx: bigint) {
    super('EINVAL', 'td-params-refused', `the TDX module refuses the parameters: ${formatStatus(status)}`, {
      status,
      statusName: formatStatus(status),
      rcx,
    });
    this.status = status;
  }
}

/**
 * Creates the TD whose parameters are `params` (TD_PARAMS). Throws ENOSPC (no KeyID), EBUSY (misc.max), ENOMEM, EIO (a
 * package without a processor; a leaf that must not fail), EAGAIN (no entropy), EINVAL with the status (parameters);
 * nothing of the TD is left then, but what is leaked.
 * @internal
 */
export async function createTd(td: TrustDomain, cpu: Cpu, params: Uint8Array): Promise<void> {
  const { host, vm } = td;
  const { pages } = host;
  const { kernel } = vm;
  td.keyId = kernel.keyIds.alloc();
  charge(td);
  const taken: number[] = [];
  try {
    const tdrPage = takePage(td, cpu, taken, 'TDR');
    const count = host.sysinfo.tdCtrl.tdcsBaseSize / PAGE_4K;
    for (let i = 0; i < count; i++) takePage(td, cpu, taken, 'TDCX');
    checkPackages(td);
    await host.globalLock.run(() => {
      const status = tdCall(cpu, TDH.mngCreate, tdrPage, td.keyId);
      if (status === STATUS.TDX_RND_NO_ENTROPY) throw noEntropy(TDH.mngCreate);
      if (status !== STATUS.TDX_SUCCESS) throw bugOn(vm, TDH.mngCreate, status);
    });
    taken.shift();
    td.tdr = tdrPage;
    configureKeys(td);
    for (let page = taken.shift(); page !== undefined; page = taken.shift()) {
      const status = tdCall(cpu, TDH.mngAddcx, page, td.tdr);
      if (status === STATUS.TDX_SUCCESS) {
        td.tdcs.push(page);
        continue;
      }
      taken.unshift(page);
      throw status === STATUS.TDX_RND_NO_ENTROPY ? noEntropy(TDH.mngAddcx) : bugOn(vm, TDH.mngAddcx, status);
    }
    initialise(td, cpu, params);
  } catch (error) {
    for (const page of taken) pages.freeLent(cpu, page);
    await releaseKeyId(td);
    reclaimControlPages(td);
    throw error;
  }
}

/** The group's share of KeyIDs. Throws EBUSY, with the KeyID given back. */
function charge(td: TrustDomain): void {
  const { keyIdResource } = td.host;
  if (keyIdResource.tryCharge()) return;
  td.vm.kernel.keyIds.free(td.keyId);
  td.keyId = 0;
  throw new KernelError('EBUSY', 'keyid-limit', `misc.max allows ${keyIdResource.max} KeyIDs, all in use`, {
    max: keyIdResource.max,
    current: keyIdResource.current,
  });
}

function takePage({ host }: TrustDomain, cpu: Cpu, taken: number[], kind: string): number {
  const page = host.pages.allocLent(cpu, kind);
  taken.push(page);
  return page;
}

/** Keys are programmed by a processor of each package, so each must have one online. */
function checkPackages({ vm: { kernel } }: TrustDomain): void {
  const online = new Set(kernel.cpus.filter((cpu) => cpu.online).map((cpu) => cpu.packageId));
  const without = [...new Set(kernel.cpus.map((cpu) => cpu.packageId))].filter((id) => !online.has(id));
  if (without.length === 0) return;
  kernel.log.write('warn', KVM_PREFIX, 'every package needs an online CPU to create a TD', 'package-offline');
  throw new KernelError('EIO', 'package-offline', `package ${without[0]} has no online CPU`, {
    packages: without,
  });
}

function configureKeys(td: TrustDomain): void {
  for (const cpu of firstOnlinePerPackage(td.vm.kernel.cpus)) {
    const status = tdCall(cpu, TDH.mngKeyConfig, td.tdr);
    if (status !== STATUS.TDX_SUCCESS)
      throw bugOn(td.vm, TDH.mngKeyConfig, status, { package: cpu.packageId });
  }
}

function initialise(td: TrustDomain, cpu: Cpu, params: Uint8Array): void {
  const { pages } = td.host;
  const buffer = pages.alloc('TD_PARAMS');
  try {
    cpu.lp.store(buffer, params);
    const status = tdCall(cpu, TDH.mngInit, td.tdr, buffer);
    if (isInvalidOperand(status)) throw new ModuleRefusal(status, cpu.lp.regs.q[RCX]!);
    if (status !== STATUS.TDX_SUCCESS) throw bugOn(td.vm, TDH.mngInit, status);
  } finally {
    pages.free(buffer);
  }
}

function noEntropy(leaf: number): KernelError {
  return new KernelError('EAGAIN', 'no-entropy', 'the module found no entropy; try again', { leaf });
}
