/** KVM_SEV_INIT2: the VM becomes an SNP guest and gets an ASID. */
import { KernelError } from '../../../abi/errno.ts';
import { GHCB_VERSION } from '../../../abi/ghcb.ts';
import { KVM_SEV_INIT } from '../../../abi/kvm/sev.ts';
import { SEV_FEATURES } from '../../../machine/snp/vmsa.ts';
import { invalid, type SevHandler } from './command.ts';
import type { SnpGuest } from './snp-guest.ts';

/** @internal */
export const initGuest: SevHandler = async (guest, task, { data }) => {
  const { vm, host } = guest;
  const init = KVM_SEV_INIT.decode(await task.copyIn(data, KVM_SEV_INIT.bytes));
  if (vm.createdVcpus > 0) throw invalid('sev-init-vcpus', 'KVM_SEV_INIT2 comes before the first vCPU');
  if (init.flags !== 0)
    throw invalid('sev-init-flags', 'KVM_SEV_INIT2 takes no flags', { flags: init.flags });
  const unknown = init.vmsa_features & ~host.vmsaFeatures;
  if (unknown !== 0n) {
    throw invalid('sev-vmsa-features', 'the host does not offer these VMSA features', {
      unknown,
      offered: host.vmsaFeatures,
    });
  }
  if (init.ghcb_version > GHCB_VERSION.max) {
    throw invalid('sev-ghcb-version', `the GHCB protocol goes up to version ${GHCB_VERSION.max}`, {
      version: init.ghcb_version,
    });
  }
  const asid = takeAsid(guest);
  try {
    guest.requestPfns = requestPages(guest);
  } catch (error) {
    giveAsidBack(guest, asid);
    throw error;
  }
  guest.asid = asid;
  guest.vmsaFeatures = init.vmsa_features | SEV_FEATURES.snpActive;
  guest.ghcbVersion = init.ghcb_version === 0 ? GHCB_VERSION.max : init.ghcb_version;
};

function takeAsid({ host }: SnpGuest): number {
  if (!host.asidResource.tryCharge()) {
    throw new KernelError('EBUSY', 'asids-exhausted', 'the misc controller allows no more SNP guests', {
      current: host.asidResource.current,
    });
  }
  try {
    return host.asids.allocate();
  } catch (error) {
    host.asidResource.uncharge();
    throw error;
  }
}

/** Gives the ASID of a guest back. @internal */
export function giveAsidBack({ host }: SnpGuest, asid: number): void {
  host.asids.free(asid);
  host.asidResource.uncharge();
}

/** Bounce pages for requests of the guest to the firmware. */
function requestPages({ host }: SnpGuest): readonly [number, number] {
  const { pageRefs } = host.kernel;
  const request = pageRefs.alloc({ purpose: 'snp-guest-request' });
  if (request === null) {
    throw new KernelError('ENOMEM', 'snp-no-memory', 'there is no memory for requests to the firmware');
  }
  try {
    return [request, host.allocFirmwarePage('snp-guest-response')];
  } catch {
    pageRefs.put(request);
    throw new KernelError('EIO', 'snp-firmware-page', 'there is no page for responses of the firmware');
  }
}
