/** A vCPU's association with a logical processor (module facts 5). */
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { ControlStructure } from './control-structure.ts';
import { MAX_VMS, NO_LP, NULL_PA, TDCS, TDVPS } from './layout.ts';
import type { TrustDomain } from './trust-domain.ts';

function forgetHostState(tdvps: ControlStructure, flags: number): void {
  for (let vm = 0; vm < MAX_VMS; vm++) tdvps.setU8(flags + vm, 0);
}

/** Associates a vCPU that was never run with `lp`. @public */
export function associateNewVcpu(td: TrustDomain, tdvps: ControlStructure, lp: LogicalProcessor): void {
  tdvps.setU64(TDVPS.LAST_SEAMDB_INDEX, 0n);
  tdvps.setU32(TDVPS.ASSOC_LPID, lp.apicId);
  forgetHostState(tdvps, TDVPS.MODULE_DEPENDENT_FIELDS_UPDATED);
  forgetHostState(tdvps, TDVPS.LP_DEPENDENT_HPA_UPDATED);
  countAssociated(td, 1);
}

/**
 * Associates a vCPU with `lp` unless another processor has it. Returns whether it was free before, or undefined when
 * it is another's.
 * @public
 */
export function associateVcpu(
  td: TrustDomain,
  tdvps: ControlStructure,
  lp: LogicalProcessor,
): { readonly isNew: boolean } | undefined {
  const holder = tdvps.u32(TDVPS.ASSOC_LPID);
  if (holder === lp.apicId) return { isNew: false };
  if (holder !== NO_LP) return undefined;
  tdvps.setU32(TDVPS.ASSOC_LPID, lp.apicId);
  forgetHostState(tdvps, TDVPS.LP_DEPENDENT_HPA_UPDATED);
  countAssociated(td, 1);
  return { isNew: true };
}

/** Takes a vCPU off its logical processor. @public */
export function dissociateVcpu(td: TrustDomain, tdvps: ControlStructure): void {
  forgetTranslations(td, tdvps);
  for (let vm = 0; vm <= td.tdcs.u16(TDCS.NUM_L2_VMS); vm++) tdvps.setU8(TDVPS.VM_LAUNCHED + vm, 0);
  tdvps.setU32(TDVPS.ASSOC_LPID, NO_LP);
  countAssociated(td, -1);
}

/** Drops the physical addresses a vCPU remembers for its L2 VMs, when the TD's translations may have changed. @public */
export function forgetTranslations({ tdcs }: TrustDomain, tdvps: ControlStructure): void {
  for (let vm = 0; vm <= tdcs.u16(TDCS.NUM_L2_VMS); vm++) {
    tdvps.setU64(TDVPS.L2_ENTER_GUEST_STATE_HPA + 8 * vm, NULL_PA);
    tdvps.setU64(TDVPS.L2_VAPIC_HPA + 8 * vm, NULL_PA);
  }
}

function countAssociated({ tdcs }: TrustDomain, change: number): void {
  tdcs.setU32(TDCS.NUM_ASSOC_VCPUS, tdcs.u32(TDCS.NUM_ASSOC_VCPUS) + change);
}

/** Changes the count of the vCPUs that run in `epoch`; odd and even epochs have a count each. @public */
export function countInEpoch(tdcs: ControlStructure, epoch: bigint, change: number): void {
  const at = TDCS.REFCOUNT + 2 * Number(epoch & 1n);
  tdcs.setU16(at, tdcs.u16(at) + change);
}

/** The vCPU no longer runs in the epoch it was entered in. @public */
export function leaveEpoch(tdcs: ControlStructure, tdvps: ControlStructure): void {
  countInEpoch(tdcs, tdvps.u64(TDVPS.VCPU_EPOCH), -1);
}
