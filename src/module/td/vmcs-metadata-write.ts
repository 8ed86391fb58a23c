/** Writes of VMCS fields by VP.WR: what a field's new value must be, and what follows from it (module facts 9). */
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { MODULE_MSR } from '../platform-msrs.ts';
import { withHostUncorePmi } from './debugctl.ts';
import { ATTRIBUTES, hasAny, XFAM } from './features.ts';
import { isGpaValid } from './gpa.ts';
import { NULL_PA, TDCS, TDVPS } from './layout.ts';
import type { VcpuContext } from './vcpu-metadata.ts';
import { virtualMsr } from './virtual-msrs.ts';
import { nativeTicks } from './virtual-tsc.ts';
import { VMCS, Vmcs } from './vmcs.ts';

const NOT_VALID = STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
const CR0_PG = 1n << 31n;
const CR4_MCE = 1n << 6n;
const EFER_LME = 1n << 8n;
const EFER_LMA = 1n << 10n;
/** CR3 above the page table's address, where bits 62:61 ask for linear address masking. */
const CR3_NO_ADDRESS = 0xfffn << 52n;
const CR3_LAM = 0b11n << 61n;
const DEBUGCTL_TR = 1n << 6n;
const DEBUGCTL_BTS = 1n << 7n;
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
function ruleCommon(context: VcpuContext, vmcs: Vmcs, code: number, value: bigint): Ruled {
  const { tdcs } = context.td;
  switch (code) {
    case VMCS.GUEST_EFER:
      return { value: withLongModeActive(value, vmcs.read(VMCS.GUEST_CR0)) };
    case VMCS.GUEST_CR3: {
      const address = context.module.platform!.features.lam ? value & ~CR3_LAM : value;
      const valid = (address & CR3_NO_ADDRESS) === 0n && isGpaValid(tdcs, Number(address), true);
      return valid ? { value } : INVALID;
    }
    case VMCS.GUEST_DEBUGCTL: {
      const debug = hasAny(tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.DEBUG);
      if (hasAny(value, DEBUGCTL_TR) && !hasAny(value, DEBUGCTL_BTS) && !debug) return INVALID;
      return { value: withHostUncorePmi(context.lp, value) };
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
    if (code === VMCS.VIRTUAL_APIC_PAGE) {
      tdvps.setU64(TDVPS.L2_VAPIC_HPA + 8 * vm, NULL_PA);
    } else if (code !== VMCS.SHARED_EPTP) {
      combineOwners(context, vmcs, vm, code);
    } else if (hasAny(tdvps.u64(TDVPS.L2_CTLS + 8 * vm), L2_ENABLE_SHARED_EPTP)) {
      vmcs.write(code, value);
    }
    return STATUS.TDX_SUCCESS;
  }
  const ruled = ruleL2Vmcs(context, vmcs, vm, code, value, mask);
  if ('status' in ruled) return ruled.status;
  vmcs.write(code, ruled.value);
  return STATUS.TDX_SUCCESS;
}

/** Fields of which the TDVPS keeps what L1 wrote, while the VMCS holds what follows from it. @internal */
export const L2_OWN_COPIES: Readonly<Record<number, number>> = {
  [VMCS.CR0_MASK]: TDVPS.SHADOW_CR0_GUEST_HOST_MASK,
  [VMCS.CR0_SHADOW]: TDVPS.SHADOW_CR0_READ_SHADOW,
  [VMCS.CR4_MASK]: TDVPS.SHADOW_CR4_GUEST_HOST_MASK,
  [VMCS.CR4_SHADOW]: TDVPS.SHADOW_CR4_READ_SHADOW,
  [VMCS.SHARED_EPTP]: TDVPS.SHADOW_SHARED_EPTP,
  [VMCS.VIRTUAL_APIC_PAGE]: TDVPS.L2_VAPIC_GPA,
};

/** The same, for fields of 32 bits. @internal */
export const PAUSE_LOOP_COPIES: Readonly<Record<number, number>> = {
  [VMCS.PLE_GAP]: TDVPS.SHADOW_PLE_GAP,
  [VMCS.PLE_WINDOW]: TDVPS.SHADOW_PLE_WINDOW,
};

/** Which bits of CR0 or CR4 are owned, by L1 or by the module: L1's word counts where both do. */
function combineOwners({ tdvps }: VcpuContext, vmcs: Vmcs, vm: number, code: number): void {
  const isCr0 = code === VMCS.CR0_MASK || code === VMCS.CR0_SHADOW;
  const [maskCode, shadowCode] = isCr0 ? [VMCS.CR0_MASK, VMCS.CR0_SHADOW] : [VMCS.CR4_MASK, VMCS.CR4_SHADOW];
  const base = tdvps.u64(isCr0 ? TDVPS.BASE_L2_CR0_GUEST_HOST_MASK : TDVPS.BASE_L2_CR4_GUEST_HOST_MASK);
  const baseShadow = tdvps.u64(isCr0 ? TDVPS.BASE_L2_CR0_READ_SHADOW : TDVPS.BASE_L2_CR4_READ_SHADOW);
  const mask = tdvps.u64(L2_OWN_COPIES[maskCode]! + 8 * vm);
  const shadow = tdvps.u64(L2_OWN_COPIES[shadowCode]! + 8 * vm);
  vmcs.write(maskCode, base | mask);
  vmcs.write(shadowCode, (base & ~mask & baseShadow) | (mask & shadow));
}

/** L1 counts pauses in ticks of the TD's counter, the CPU in its own. L1's value stays even when there is no other. */
function rulePauseLoop({ td, tdvps }: VcpuContext, vm: number, code: number, value: bigint): Ruled {
  tdvps.setU32(PAUSE_LOOP_COPIES[code]! + 4 * vm, Number(value));
  const native = nativeTicks(td.tdcs, value);
  return native === undefined || native >> 32n !== 0n ? INVALID : { value: native };
}

function ruleL2Vmcs(
  context: VcpuContext,
  vmcs: Vmcs,
  vm: number,
  code: number,
  value: bigint,
  mask: bigint,
): Ruled {
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
    case VMCS.PLE_GAP:
    case VMCS.PLE_WINDOW:
      return access === 'guest' ? rulePauseLoop(context, vm, code, value) : { value };
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
