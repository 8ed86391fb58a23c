/** A throw-away TD, made and taken apart at boot, which proves that TDs can be made on this host. */
import { PAGE_4K, withKeyId } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { hostLeafName, TDH } from '../abi/leaves.ts';
import { formatStatus } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import { type Cpu, firstOnline, firstOnlinePerPackage } from './cpu.ts';
import type { HostKernel } from './host-kernel.ts';
import { PamtPages } from './pamt-pages.ts';
import { seamcall, setOperands } from './seamcall.ts';

/** What a TD needs of its host. @internal */
export type PrimingHost = Pick<
  HostKernel,
  'machine' | 'tdMemory' | 'keyIds' | 'sysinfo' | 'enabled' | 'detection'
> & { readonly cpus: readonly Cpu[] };

/**
 * Makes a TD as far as its control structures, and takes it apart again. Throws ENOSPC, ENOMEM or EIO naming the leaf and
 * the status; what the module has of the TD stays with it then.
 * @internal
 */
export function primeTd(host: PrimingHost): void {
  const { cpus, tdMemory, keyIds } = host;
  const cpu = firstOnline(cpus);
  const packages = firstOnlinePerPackage(cpus);
  const pamt = host.enabled!.dynamicPamt ? new PamtPages(tdMemory) : null;
  const keyId = keyIds.alloc();
  const [tdr, ...tdcs] = takePages(host, cpu, pamt) as [number, ...number[]];
  must(cpu, TDH.mngCreate, tdr, keyId);
  for (const one of packages) must(one, TDH.mngKeyConfig, tdr);
  for (const page of tdcs) must(cpu, TDH.mngAddcx, page, tdr);
  must(cpu, TDH.mngVpflushdone, tdr);
  for (const one of packages) must(one, TDH.phymemCacheWb, 0);
  must(cpu, TDH.mngKeyFreeid, tdr);
  keyIds.free(keyId);
  for (const page of [...tdcs, tdr]) must(cpu, TDH.phymemPageReclaim, page);
  // The TDR was under the module's own KeyID, which nobody has flushed.
  must(cpu, TDH.phymemPageWbinvd, withKeyId(tdr, host.detection!.globalKeyId, host.machine.keyIdStartBit));
  for (const page of [...tdcs, tdr]) {
    cpu.lp.movdir64bZero(page, page + PAGE_4K);
    pamt?.put(cpu, page);
    tdMemory.free(page / PAGE_4K, 0);
  }
}

/** Addresses of a TDR and of the pages of a TDCS, ready for the module. */
function takePages({ tdMemory, sysinfo }: PrimingHost, cpu: Cpu, pamt: PamtPages | null): readonly number[] {
  const count = 1 + sysinfo!.tdCtrl.tdcsBaseSize / PAGE_4K;
  return Array.from({ length: count }, () => {
    const page = tdMemory.alloc(0, { purpose: 'prime', node: cpu.lp.node }) * PAGE_4K;
    pamt?.get(cpu, page);
    cpu.lp.clflushPage(page);
    return page;
  });
}

function must(cpu: Cpu, leaf: number, rcx: number, rdx = 0): void {
  setOperands(cpu, rcx, rdx);
  const status = seamcall(cpu, leaf);
  if (status === STATUS.TDX_SUCCESS) return;
  const leafName = hostLeafName(leaf);
  const statusName = formatStatus(status);
  const text = `no TD can be made on this host: ${leafName} failed with ${statusName}`;
  throw new KernelError('EIO', 'priming-failed', text, { leafName, status, statusName });
}
