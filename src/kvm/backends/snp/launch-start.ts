/** KVM_SEV_SNP_LAUNCH_START: the firmware makes the guest's context and binds it to the ASID. */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { KVM_SEV_SNP_LAUNCH_START } from '../../../abi/kvm/sev.ts';
import type { Task } from '../../../kernel/process/task.ts';
import {
  SEV_STATUS,
  SNP_ACTIVATE,
  SNP_ADDRESS,
  SNP_COMMAND,
  SNP_LAUNCH_START,
  SNP_POLICY,
} from '../../../machine/snp/firmware/commands.ts';
import { invalid, issueCommand, type SevCommand, type SevHandler } from './command.ts';
import type { SnpGuest } from './snp-guest.ts';

/** Bits of a policy that this kernel knows. */
const KNOWN_POLICY =
  SNP_POLICY.apiMinor |
  SNP_POLICY.apiMajor |
  SNP_POLICY.smt |
  SNP_POLICY.mustBeOne |
  SNP_POLICY.debug |
  SNP_POLICY.singleSocket;

/** @internal */
export const launchStart: SevHandler = async (guest, task, command) => {
  if (!guest.isInitialised) {
    throw new KernelError('ENOTTY', 'snp-not-initialised', 'KVM_SEV_INIT2 has not been done');
  }
  const start = KVM_SEV_SNP_LAUNCH_START.decode(
    await task.copyIn(command.data, KVM_SEV_SNP_LAUNCH_START.bytes),
  );
  const { policy, flags, gosvw } = start;
  if (guest.contextPfn !== null) throw invalid('snp-launch-started', 'the launch has been started already');
  if (flags !== 0) throw invalid('snp-launch-flags', 'LAUNCH_START takes no flags', { flags });
  const unknown = policy & ~KNOWN_POLICY;
  if (unknown !== 0n) throw invalid('snp-policy', 'the policy has unknown bits', { unknown });
  if ((policy & SNP_POLICY.mustBeOne) === 0n) throw invalid('snp-policy', 'bit 17 of a policy must be 1');
  guest.policy = policy;
  guest.contextPfn = createContext(guest, task, command);
  const gctx_paddr = BigInt(guest.contextPfn * PAGE_4K);
  try {
    const buffer = SNP_LAUNCH_START.encode({ gctx_paddr, policy, gosvw });
    issueCommand(guest, task, command, SNP_COMMAND.LAUNCH_START, buffer);
    const activation = SNP_ACTIVATE.encode({ gctx_paddr, asid: guest.asid });
    issueCommand(guest, task, command, SNP_COMMAND.ACTIVATE, activation);
  } catch (error) {
    decommission(guest);
    throw error;
  }
  guest.vm.files.advance('populating');
};

function createContext(guest: SnpGuest, task: Task, command: SevCommand): number {
  const { host } = guest;
  let pfn: number | null = null;
  try {
    pfn = host.allocFirmwarePage('snp-guest-context');
    const address = BigInt(pfn * PAGE_4K);
    issueCommand(guest, task, command, SNP_COMMAND.GCTX_CREATE, SNP_ADDRESS.encode({ address }));
    return pfn;
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    if (pfn !== null) host.freeFirmwarePage(pfn);
    // Whatever went wrong, this is the kernel's answer.
    throw new KernelError(
      'ENOTTY',
      'snp-context',
      'the firmware has made no guest context',
      error.reason.data,
    );
  }
}

/** Has the firmware forget the guest and takes its context page back. False: page and ASID are lost. @internal */
export function decommission(guest: SnpGuest): boolean {
  const { contextPfn, host } = guest;
  if (contextPfn === null) return true;
  const address = BigInt(contextPfn * PAGE_4K);
  const status = host.command(SNP_COMMAND.DECOMMISSION, SNP_ADDRESS.encode({ address }));
  if (status !== SEV_STATUS.SUCCESS) {
    host.leakedPages++;
    return false;
  }
  host.freeFirmwarePage(contextPfn);
  guest.contextPfn = null;
  return true;
}
