/** The end of an SNP guest: save areas, firmware pages, context and ASID go back, in this order. */
import type { Vcpu } from '../../vcpu.ts';
import { giveAsidBack } from './init2.ts';
import { decommission } from './launch-start.ts';
import { sharePages } from './rmp.ts';
import type { SnpGuest } from './snp-guest.ts';

/** Frees a vCPU's save area; one that cannot be taken back is lost. @internal */
export function freeVcpu(guest: SnpGuest, vcpu: Vcpu): void {
  const state = guest.vcpus.get(vcpu);
  if (state === undefined) return;
  guest.vcpus.delete(vcpu);
  state.ghcbPage?.close();
  const { host } = guest;
  if (sharePages(host, host.lp, state.vmsaPfn, 1)) host.kernel.pageRefs.put(state.vmsaPfn);
}

/** Memory and vCPUs are gone already. An ASID whose guest the firmware does not forget is lost. @internal */
export function destroyGuest(guest: SnpGuest): void {
  if (!guest.isInitialised) return;
  const { host, vm } = guest;
  vm.files.advance('dead');
  // Lines of the guest's must leave the caches before its pages are used again.
  for (const { lp } of host.kernel.cpus) lp.wbinvd();
  if (guest.requestPfns !== null) {
    const [request, response] = guest.requestPfns;
    host.kernel.pageRefs.put(request);
    host.freeFirmwarePage(response);
  }
  if (decommission(guest)) giveAsidBack(guest, guest.asid);
}
