/** Writes of VMCS fields by VP.WR: what a field's new value must be, and what follows from it (module facts 9). */
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { MODULE_MSR } from '../platform-msrs.ts';
import { ATTRIBUTES, hasAny, XFAM } from './features.ts';
import { isGpaValid } from './gpa.ts';
import { NULL_PA, TDCS, TDVPS } from './layout.ts';
import type { VcpuContext } from './vcpu-metadata.ts';
import { virtualMsr } from './virtual-msrs.ts';
import { VMCS, Vmcs } from './vmcs.ts';

const NOT_VALID = STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
const CR0_PG = 1n << 31n;
const CR4_MCE = 1n << 6n;
const EFER_LME = 1n << 8n;
const EFER_LMA = 1n << 10n;
/** CR3: reserved bits 60:52 and 63, and linear address masking in 62:61. */
const CR3_RESERVED = (0x1ffn << 52n) | (1n << 63n);
const CR3_LAM = 0b11n << 61n;
const DEBUGCTL_TR = 1n << 6n;
const DEBUGCTL_BTS = 1n << 7n;
const DEBUGCTL_UNCORE_PMI = 1n << 13n;
const POSTED_INTERRUPTS = 1n << 7n;
const NO_VECTOR = 0xffff;
const MAX_VECTOR = 255n;
const ENABLE_PML = 1n << 17n;
const EPTP_SUPERVISOR_SHADOW_STACK = 1n << 7n;
const L2_ENABLE_SHARED_EPTP = 1n << 0n;

/** The value to write, or the status of a refusal. */
type Ruled = { readonly value: bigint } | { readonly status: bigint };

const INVALID: Ruled = { status: NOT_VALID };

/** Writes a field of the TD's own VMCS. @internal */
export function storeVmcsField(context: VcpuContext, code: number, value: bigint, mask: bigint): bigint {
  const vmcs = new Vmcs(context.tdvps);
  const ruled = ruleVmcs(context, vmcs, code, value, mask);
  if ('status' in ruled) return ruled.status;
  vmcs.write(code, ruled.value);
  return STATUS.TDX_SUCCESS;
}

function ruleVmcs(context: VcpuContext, vmcs: Vmcs, code: number, value: bigint, mask: bigint): Ruled {
  const { tdvps } = context;
  switch (code) {
    case VMCS.GUEST_CR0:
      return ruleCr0(vmcs, value, vmcs.read(VMCS.CR0_MASK), vmcs.read(VMCS.CR0_SHADOW));
    case VMCS.GUEST_CR4: {
      const shadow = (vmcs.read(VMCS.CR4_SHADOW) & ~CR4_MCE) | (value & CR4_MCE);
      vmcs.write(VMCS.CR4_SHADOW, shadow);
      const owned = vmcs.read(VMCS.CR4_MASK) & ~CR4_MCE;
      return ruleControlRegister(vmcs.read(code), value | CR4_MCE, owned, shadow);
    }
    case VMCS.POSTED_INTERRUPT_NOTIFICATION_VECTOR:
      if (value > MAX_VECTOR) return INVALID;
      tdvps.setU16(TDVPS.SHADOW_POSTED_INT_NOTIFICATION_VECTOR, Number(value));
      return { value };
    case VMCS.POSTED_INTERRUPT_DESCRIPTOR:
      tdvps.setU64(TDVPS.SHADOW_PID_HPA, value);
      return { value };
    case VMCS.PINBASED_CTLS:
      return rulePinBased(context, vmcs, value);
    case VMCS.PROCBASED_CTLS2:
      return ruleProcBased2(context, vmcs, value, mask);
    case VMCS.SHARED_EPTP:
      tdvps.setU64(TDVPS.SHADOW_SHARED_EPTP, value);
      return { value };
    default:
      return ruleCommon(context, vmcs, code, value);
  }
}

/** Fields with the same rule in every VMCS. */
function ruleCommon({ td }: VcpuContext, vmcs: Vmcs, code: number, value: bigint): Ruled {
  const { tdcs } = td;
  switch (code) {
    case VMCS.GUEST_EFER:
      return { value: withLongModeActive(value, vmcs.read(VMCS.GUEST_CR0)) };
    case VMCS.GUEST_CR3: {
      const address = value & ~CR3_LAM;
      const valid = (value & CR3_RESERVED) === 0n && isGpaValid(tdcs, Number(address), true);
      return valid ? { value } : INVALID;
    }
    case VMCS.GUEST_DEBUGCTL: {
      const debug = hasAny(tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.DEBUG);
      if (hasAny(value, DEBUGCTL_TR) && !hasAny(value, DEBUGCTL_BTS) && !debug) return INVALID;
      return { value: value & ~DEBUGCTL_UNCORE_PMI };
    }
    default:
      return { value };
  }
}

/** Bits of the host's must be written as the guest reads them, and keep what they are. */
function ruleControlRegister(old: bigint, value: bigint, mask: bigint, shadow: bigint): Ruled {
  if (((value ^ shadow) & mask) !== 0n) return INVALID;
  return { value: (old & mask) | (value & ~mask) };
}

function ruleCr0(vmcs: Vmcs, value: bigint, mask: bigint, shadow: bigint): Ruled {
  const ruled = ruleControlRegister(vmcs.read(VMCS.GUEST_CR0), value, mask, shadow);
  if ('value' in ruled) {
    vmcs.write(VMCS.GUEST_EFER, withLongModeActive(vmcs.read(VMCS.GUEST_EFER), ruled.value));
  }
  return ruled;
}

function withLongModeActive(efer: bigint, cr0: bigint): bigint {
  const active = hasAny(efer, EFER_LME) && hasAny(cr0, CR0_PG);
  return active ? efer | EFER_LMA : efer & ~EFER_LMA;
}

/** Posted interrupts need a vector and a descriptor first. */
function rulePinBased({ tdvps }: VcpuContext, vmcs: Vmcs, value: bigint): Ruled {
  if (hasAny(value, POSTED_INTERRUPTS)) {
    const missing = (code: number): Ruled => ({
      status: withOperand(STATUS.TDX_TD_VMCS_FIELD_NOT_INITIALIZED, code),
    });
    if (vmcs.read32(VMCS.POSTED_INTERRUPT_NOTIFICATION_VECTOR) === NO_VECTOR) {
      return missing(VMCS.POSTED_INTERRUPT_NOTIFICATION_VECTOR);
    }
    if (vmcs.read(VMCS.POSTED_INTERRUPT_DESCRIPTOR) === NULL_PA) {
      return missing(VMCS.POSTED_INTERRUPT_DESCRIPTOR);
    }
  }
  tdvps.setU32(TDVPS.SHADOW_PINBASED_EXEC_CTLS, Number(value));
  return { value };
}

/** Controls within what `capability` allows: bits that must be one in its low half, bits that may be in its high half. */
function isAllowed(capability: bigint, value: bigint, mask: bigint): boolean {
  const mustBeOne = capability & 0xffff_ffffn;
  return (mask & ((~value & mustBeOne) | (value & ~(capability >> 32n)))) === 0n;
}

function ruleProcBased2({ module, td }: VcpuContext, vmcs: Vmcs, value: bigint, mask: bigint): Ruled {
  const capability = module.platform!.msrs.get(MODULE_MSR.VMX_PROCBASED_CTLS2)!;
  if (!isAllowed(capability, value, mask)) return INVALID;
  if (hasAny(value, ENABLE_PML)) {
    const debug = hasAny(td.tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.DEBUG);
    if (!debug || vmcs.read(VMCS.PML_ADDRESS) >> 63n === 1n) return INVALID;
  }
  return { value };
}

/** Writes a field of an L2 VM's VMCS. @internal */
export function storeL2VmcsField(
  context: VcpuContext,
  vm: number,
  code: number,
  value: bigint,
  mask: bigint,
): bigint {
  const { tdvps } = context;
  const vmcs = new Vmcs(tdvps, vm);
  const own = L2_OWN_COPIES[code];
  if (own !== undefined) {
    tdvps.setU64(own + 8 * vm, value);
    if (code === VMCS.VIRTUAL_APIC_PAGE) tdvps.setU64(TDVPS.L2_VAPIC_HPA + 8 * vm, NULL_PA);
    else if (code !== VMCS.SHARED_EPTP) combineOwners(context, vmcs, vm);
    const reaches = hasAny(tdvps.u64(TDVPS.L2_CTLS + 8 * vm), L2_ENABLE_SHARED_EPTP);
    if (code === VMCS.SHARED_EPTP && reaches) vmcs.write(code, value);
    return STATUS.TDX_SUCCESS;
  }
  const ruled = ruleL2Vmcs(context, vmcs, code, value, mask);
  if ('status' in ruled) return ruled.status;
  vmcs.write(code, ruled.value);
  return STATUS.TDX_SUCCESS;
}

/** Fields of which the TDVPS keeps what L1 wrote, while the VMCS holds what follows from it. */
const L2_OWN_COPIES: Readonly<Record<number, number>> = {
  [VMCS.CR0_MASK]: TDVPS.SHADOW_CR0_GUEST_HOST_MASK,
  [VMCS.CR0_SHADOW]: TDVPS.SHADOW_CR0_READ_SHADOW,
  [VMCS.CR4_MASK]: TDVPS.SHADOW_CR4_GUEST_HOST_MASK,
  [VMCS.CR4_SHADOW]: TDVPS.SHADOW_CR4_READ_SHADOW,
  [VMCS.SHARED_EPTP]: TDVPS.SHADOW_SHARED_EPTP,
  [VMCS.VIRTUAL_APIC_PAGE]: TDVPS.L2_VAPIC_GPA,
};

/** Bits that L1 or the module own: L1's word counts where both do. */
function combineOwners({ tdvps }: VcpuContext, vmcs: Vmcs, vm: number): void {
  for (const [maskCode, shadowCode, baseMask, baseShadow] of [
    [VMCS.CR0_MASK, VMCS.CR0_SHADOW, TDVPS.BASE_L2_CR0_GUEST_HOST_MASK, TDVPS.BASE_L2_CR0_READ_SHADOW],
    [VMCS.CR4_MASK, VMCS.CR4_SHADOW, TDVPS.BASE_L2_CR4_GUEST_HOST_MASK, TDVPS.BASE_L2_CR4_READ_SHADOW],
  ] as const) {
    const mask = tdvps.u64(L2_OWN_COPIES[maskCode]! + 8 * vm);
    const shadow = tdvps.u64(L2_OWN_COPIES[shadowCode]! + 8 * vm);
    const base = tdvps.u64(baseMask);
    vmcs.write(maskCode, base | mask);
    vmcs.write(shadowCode, (base & ~mask & tdvps.u64(baseShadow)) | (mask & shadow));
  }
}

function ruleL2Vmcs(context: VcpuContext, vmcs: Vmcs, code: number, value: bigint, mask: bigint): Ruled {
  const { module, td, tdvps, access } = context;
  const { tdcs } = td;
  const native = module.platform!.msrs;
  const debugHost = access === 'debug';
  switch (code) {
    case VMCS.GUEST_CR0:
      return ruleCr0(
        vmcs,
        value,
        tdvps.u64(TDVPS.BASE_L2_CR0_GUEST_HOST_MASK),
        tdvps.u64(TDVPS.BASE_L2_CR0_READ_SHADOW),
      );
    case VMCS.GUEST_CR4: {
      const base = tdvps.u64(TDVPS.BASE_L2_CR4_GUEST_HOST_MASK);
      return ruleControlRegister(vmcs.read(code), value, base, tdvps.u64(TDVPS.BASE_L2_CR4_READ_SHADOW));
    }
    case VMCS.EPTP: {
      const cet = hasAny(tdcs.u64(TDCS.XFAM), XFAM.CET);
      return hasAny(value, EPTP_SUPERVISOR_SHADOW_STACK) && !cet ? INVALID : { value };
    }
    case VMCS.PROCBASED_CTLS: {
      const own = virtualMsr(tdcs, 'VMX_TRUE_PROCBASED_CTLS');
      const capability = debugHost ? native.get(MODULE_MSR.VMX_TRUE_PROCBASED_CTLS)! : own;
      return isAllowed(capability, value, mask) ? { value } : INVALID;
    }
    case VMCS.PROCBASED_CTLS2: {
      const own = virtualMsr(tdcs, 'VMX_PROCBASED_CTLS2');
      const capability = debugHost ? native.get(MODULE_MSR.VMX_PROCBASED_CTLS2)! : own;
      return isAllowed(capability, value, mask) ? { value } : INVALID;
    }
    case VMCS.PROCBASED_CTLS3: {
      const own = virtualMsr(tdcs, 'VMX_PROCBASED_CTLS3');
      const capability = debugHost ? native.get(MODULE_MSR.VMX_PROCBASED_CTLS3)! : own;
      return hasAny(value & mask, ~capability) ? INVALID : { value };
    }
    default:
      return ruleCommon(context, vmcs, code, value);
  }
}
