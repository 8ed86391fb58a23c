/**
 * The end of a TD in the order the module wants (Linux host rules 2.7). What fails leaks what depends on it: a KeyID
 * that is not free keeps every page of the TD, a page that is not reclaimed keeps the TDR.
 */
import { withKeyId } from '../../../abi/address.ts';
import { TDH } from '../../../abi/leaves.ts';
import { formatStatus, STATUS_NAME_MASK } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { type Cpu, firstOnlinePerPackage } from '../../../kernel/cpu.ts';
import type { SecureEpt } from './secure-ept.ts';
import { bugOn, KVM_PREFIX, tdCall } from './td-call.ts';
import type { TdxVcpu } from './tdx-vcpu.ts';
import type { TrustDomain } from './trust-domain.ts';

/** Calls of PHYMEM.CACHE.WB on one package before KVM gives up (TDX_SEAMCALL_RETRIES). */
const CACHE_WB_TRIES = 10_000;

/**
 * Steps 1 to 5: takes all vCPUs off their processors, writes caches back and frees the KeyID. Does nothing without one.
 * When the module refuses, `td` keeps its KeyID, for good.
 * @internal
 */
export async function releaseKeyId(td: TrustDomain, vcpus: Iterable<TdxVcpu> = []): Promise<void> {
  if (!td.hasKeyId) return;
  if (td.tdr === 0) {
    freeKeyId(td);
    return;
  }
  for (const vcpu of vcpus) td.host.processors.flush(vcpu);
  await td.host.globalLock.run(() => {
    const { vm, cpu } = td;
    const done = tdCall(cpu, TDH.mngVpflushdone, td.tdr);
    if (done === STATUS.TDX_FLUSHVP_NOT_DONE) return;
    if (done !== STATUS.TDX_SUCCESS) {
      bugOn(vm, TDH.mngVpflushdone, done);
      keyIdLeaked(td, 'TDH.MNG.VPFLUSHDONE', done);
      return;
    }
    for (const one of firstOnlinePerPackage(vm.kernel.cpus)) writeBackCaches(td, one);
    const freed = tdCall(cpu, TDH.mngKeyFreeid, td.tdr);
    if (freed === STATUS.TDX_SUCCESS) freeKeyId(td);
    else {
      bugOn(vm, TDH.mngKeyFreeid, freed);
      keyIdLeaked(td, 'TDH.MNG.KEY.FREEID', freed);
    }
  });
}

/** An error is only logged: KEY.FREEID will find the write-back incomplete. */
function writeBackCaches(td: TrustDomain, cpu: Cpu): void {
  let status: bigint = STATUS.TDX_SUCCESS;
  for (let tries = 0; tries < CACHE_WB_TRIES; tries++) {
    status = tdCall(cpu, TDH.phymemCacheWb, status === STATUS.TDX_SUCCESS ? 0 : 1);
    if (status !== STATUS.TDX_INTERRUPTED_RESUMABLE) break;
  }
  if (status === STATUS.TDX_SUCCESS || status === STATUS.TDX_NO_HKID_READY_TO_WBCACHE) return;
  const text = `TDH.PHYMEM.CACHE.WB failed: ${formatStatus(status)}`;
  td.vm.kernel.log.write('err', KVM_PREFIX, text, 'kvm-seamcall-failed');
}

function freeKeyId(td: TrustDomain): void {
  td.vm.kernel.keyIds.free(td.keyId);
  td.host.keyIdResource.uncharge();
  td.keyId = 0;
}

function keyIdLeaked(td: TrustDomain, leaf: string, status: bigint): void {
  const text = `${leaf} failed (${formatStatus(status & STATUS_NAME_MASK)}): HKID ${td.keyId} is leaked`;
  td.vm.kernel.log.write('err', KVM_PREFIX, text, 'keyid-leaked');
}

/** Step 6: the tables of the secure EPT. @internal */
export function reclaimTables(td: TrustDomain, ept: SecureEpt): void {
  const { pages } = td.host;
  for (const page of ept.mirror.tablePages()) {
    if (td.hasKeyId) pages.leak(page, 'secure EPT', 'its TD keeps its KeyID');
    else pages.reclaimAndFree(td.cpu, page, 'secure EPT');
  }
  ept.mirror.clearTables();
}

/** Step 7: a vCPU's control pages, the TDVPR last. @internal */
export function reclaimVcpu({ td, tdcx, tdvpr }: TdxVcpu): void {
  const { pages } = td.host;
  for (const page of [...tdcx, tdvpr]) {
    if (page === 0) continue;
    const kind = page === tdvpr ? 'TDVPR' : 'TDCX';
    if (td.hasKeyId) pages.leak(page, kind, 'its TD keeps its KeyID');
    else pages.reclaimAndFree(td.cpu, page, kind);
  }
}

/** Steps 8 and 9: the TDCS, then the TDR, which the module used under its own KeyID. @internal */
export function reclaimControlPages(td: TrustDomain): void {
  const { host, cpu } = td;
  const { pages } = host;
  for (const page of td.tdcs.splice(0)) {
    if (td.hasKeyId) pages.leak(page, 'TDCX', 'its TD keeps its KeyID');
    else pages.reclaimAndFree(cpu, page, 'TDCX');
  }
  const { tdr } = td;
  if (tdr === 0) return;
  td.tdr = 0;
  if (td.hasKeyId) {
    pages.leak(tdr, 'TDR', 'its TD keeps its KeyID');
    return;
  }
  if (!pages.reclaim(cpu, tdr, 'TDR')) return;
  const { machine, detection } = td.vm.kernel;
  const status = tdCall(
    cpu,
    TDH.phymemPageWbinvd,
    withKeyId(tdr, detection!.globalKeyId, machine.keyIdStartBit),
  );
  if (status !== STATUS.TDX_SUCCESS) {
    bugOn(td.vm, TDH.phymemPageWbinvd, status);
    pages.leak(tdr, 'TDR', 'its cache lines could not be written back');
    return;
  }
  pages.reset(cpu, tdr);
  pages.freeLent(cpu, tdr);
}
