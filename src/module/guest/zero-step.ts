/**
 * The defence against stepping a TD by page faults: a host that lets the same instruction fault again and again must
 * first map what it needs (module facts 11).
 */

import { STATUS } from '../../abi/status-codes.ts';
import { EXIT } from '../../abi/vm-exit.ts';
import type { ControlStructure } from '../td/control-structure.ts';
import { hasAny, TD_CTLS } from '../td/features.ts';
import { isSharedGpa, lockSeptTree } from '../td/gpa.ts';
import type { Held } from '../td/held.ts';
import { TDCS, TDVPS } from '../td/layout.ts';
import { isPendingAcceptable } from '../td/sept-entry.ts';
import type { TrustDomain } from '../td/trust-domain.ts';
import { VMCS } from '../td/vmcs.ts';
import { walkPrivate } from './gpa-access.ts';
import { injectVe, VE_CATEGORY } from './injection.ts';
import type { RunningVcpu } from './running-vcpu.ts';

/** Faults without progress before the module remembers where they are, and how many places it remembers. */
const FAULTS_TOLERATED = 6;
const LIST_LENGTH = 32;
const READ_WRITE_EXECUTE = 0b111;
const VALID = 0x8000_0000;
const BLOCKING_BY_NMI = 1 << 3;
const NMI_UNBLOCKED_BY_IRET = 1n << 12n;
const NOTIFY_EPT_FAULTS = 1n;

/** Starts over when the guest has made progress since it was entered. @internal */
export function forgetFaultsOnProgress({ vmcs, tdvps, ripAtEntry }: RunningVcpu): void {
  if (vmcs.read(VMCS.GUEST_RIP) === ripAtEntry) return;
  tdvps.setU8(TDVPS.LAST_EPF_GPA_LIST_IDX, 0);
  tdvps.setU8(TDVPS.POSSIBLY_EPF_STEPPING, 0);
}

/** Notes an EPT violation at a private `gpa`. @internal */
export function noteFault(vcpu: RunningVcpu, gpa: bigint): void {
  const { tdvps } = vcpu;
  forgetFaultsOnProgress(vcpu);
  const faults = tdvps.u8(TDVPS.POSSIBLY_EPF_STEPPING);
  if (faults < FAULTS_TOLERATED) {
    tdvps.setU8(TDVPS.POSSIBLY_EPF_STEPPING, faults + 1);
    return;
  }
  const count = tdvps.u8(TDVPS.LAST_EPF_GPA_LIST_IDX);
  if (count >= LIST_LENGTH || noted(tdvps, count).includes(gpa)) return;
  tdvps.setU64(TDVPS.LAST_EPF_GPA_LIST + 8 * count, gpa);
  tdvps.setU8(TDVPS.LAST_EPF_GPA_LIST_IDX, count + 1);
}

function noted(tdvps: ControlStructure, count: number): readonly bigint[] {
  return Array.from({ length: count }, (_, i) => tdvps.u64(TDVPS.LAST_EPF_GPA_LIST + 8 * i));
}

/** What the defence makes of an entry: the status of a busy lock, the GPA that would fault again, or nothing. @internal */
export type EntryVerdict = { readonly busy: bigint } | { readonly gpa: bigint } | undefined;

/** Checks the noted places before the vCPU is entered again. Injects a #VE when the TD wants to know of the faults. @internal */
export function checkNotedFaults(held: Held, vcpu: RunningVcpu): EntryVerdict {
  const { tdvps, td, tdcs } = vcpu;
  const count = tdvps.u8(TDVPS.LAST_EPF_GPA_LIST_IDX);
  if (count === 0) return undefined;
  const locked = lockSeptTree(held, td, 'shared');
  if (locked !== STATUS.TDX_SUCCESS) return { busy: locked };
  const gpa = noted(tdvps, count).find((place) => isFaultExpected(td, Number(place)));
  if (gpa !== undefined) return { gpa };
  if (hasAny(tdcs.u64(TDCS.NOTIFY_ENABLES), NOTIFY_EPT_FAULTS)) notify(vcpu);
  return undefined;
}

function isFaultExpected(td: TrustDomain, gpa: number): boolean {
  const { fault, entry } = walkPrivate(td, gpa, READ_WRITE_EXECUTE);
  if (fault === undefined) return false;
  const goesToTheTd =
    isPendingAcceptable(entry) && !hasAny(td.tdcs.u64(TDCS.TD_CTLS), TD_CTLS.PENDING_VE_DISABLE);
  return !goesToTheTd;
}

/** Tells the TD of the last fault, unless it is in the midst of another event. */
function notify(vcpu: RunningVcpu): void {
  const { vmcs, tdcs, tdvps } = vcpu;
  const reason = vmcs.read32(VMCS.EXIT_REASON);
  const gpa = vmcs.read(VMCS.GUEST_PHYSICAL_ADDRESS);
  if ((reason & 0xffff) !== EXIT.EPT_VIOLATION || isSharedGpa(tdcs, Number(gpa))) return;
  const qualification = vmcs.read(VMCS.EXIT_QUALIFICATION);
  const inEvent =
    (vmcs.read32(VMCS.GUEST_INTERRUPTIBILITY) & BLOCKING_BY_NMI) !== 0 ||
    hasAny(qualification, NMI_UNBLOCKED_BY_IRET) ||
    vmcs.read32(VMCS.IDT_VECTORING_INFO) >= VALID ||
    tdvps.u32(TDVPS.VE_VALID) !== 0;
  if (inEvent) return;
  injectVe(vcpu, VE_CATEGORY.ARCH, { reason, qualification, physicalAddress: gpa });
}
