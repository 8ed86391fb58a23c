/** Writes of CR0, CR4 and XCR0 by a TD that the CPU leaves to the module (module facts 11). */
import { RAX, RCX, RDX, RSP } from '../../abi/registers.ts';
import { EXIT } from '../../abi/vm-exit.ts';
import { MODULE_MSR } from '../platform-msrs.ts';
import { ATTRIBUTES, hasAll, hasAny, TD_CTLS, XFAM } from '../td/features.ts';
import { CPUID_FLAG, TDCS, TDVPS } from '../td/layout.ts';
import { VMCS } from '../td/vmcs.ts';
import { injectGp, type Refusal, refuse, VE_CATEGORY } from './injection.ts';
import type { RunningVcpu } from './running-vcpu.ts';
import type { VmExit } from './vm-exit.ts';

const ACCESS = { MOV_TO_CR: 0, LMSW: 3 } as const;
const CR0 = {
  PE: 1n << 0n,
  NE: 1n << 5n,
  WP: 1n << 16n,
  NW: 1n << 29n,
  CD: 1n << 30n,
  PG: 1n << 31n,
  /** Bits that a write leaves as they are. */
  IGNORED: 0x1ffa_ffc0n,
  RESERVED_HIGH: 0xffff_ffff_0000_0000n,
} as const;
/** Bits of CR0 that LMSW can set: MP, EM and TS; PE is set already. */
const LMSW_BITS = 0xen;
const CR4 = {
  MCE: 1n << 6n,
  VMXE: 1n << 13n,
  KEY_LOCKER: 1n << 19n,
  PKE: 1n << 22n,
  CET: 1n << 23n,
  PKS: 1n << 24n,
  UINTR: 1n << 25n,
  LASS: 1n << 27n,
} as const;
/** Components of XCR0; those of IA32_XSS are the rest of XFAM. */
const XCR0_COMPONENTS = 0x6_02ffn;
const XCR0 = { X87: 1n, SSE: 1n << 1n, AVX: 1n << 2n } as const;

/** MOV to CR0 or CR4, and LMSW. False for an access that no TD should exit for. @internal */
export function crAccessExit(vcpu: RunningVcpu, { qualification }: VmExit): boolean {
  const { vmcs, regs } = vcpu;
  const low = Number(qualification & 0xffff_ffffn);
  const access = (low >>> 4) & 0b11;
  if (access === ACCESS.LMSW) {
    const value = BigInt(low >>> 16) & LMSW_BITS;
    vmcs.write(VMCS.GUEST_CR0, (vmcs.read(VMCS.GUEST_CR0) & ~LMSW_BITS) | value);
    return true;
  }
  if (access !== ACCESS.MOV_TO_CR) return false;
  const register = (low >>> 8) & 0xf;
  const value = register === RSP ? vmcs.read(VMCS.GUEST_RSP) : regs.q[register]!;
  const control = low & 0xf;
  if (control !== 0 && control !== 4) return false;
  const refusal = control === 0 ? writeCr0(vcpu, value) : writeCr4(vcpu, value);
  if (refusal !== undefined) refuse(vcpu, refusal, { reason: EXIT.CR_ACCESS, qualification });
  return true;
}

function writeCr0({ module, vmcs }: RunningVcpu, value: bigint): Refusal | undefined {
  const { msrs } = module.platform!;
  const mustBeOne = msrs.get(MODULE_MSR.VMX_CR0_FIXED0)! & ~(CR0.PE | CR0.PG);
  if (!hasAll(value, mustBeOne) || hasAny(value, ~msrs.get(MODULE_MSR.VMX_CR0_FIXED1)!)) return 'gp';
  if (!hasAny(value, CR0.PE) && hasAny(value, CR0.PG)) return 'gp';
  if (hasAny(vmcs.read(VMCS.GUEST_CR4), CR4.CET) && !hasAny(value, CR0.WP)) return 'gp';
  const unsupported = !hasAll(value, CR0.PE | CR0.NE) || hasAny(value, CR0.NW | CR0.CD | CR0.RESERVED_HIGH);
  if (unsupported) return VE_CATEGORY.UNSUPPORTED_FEATURE;
  const kept = vmcs.read(VMCS.GUEST_CR0) & CR0.IGNORED;
  vmcs.write(VMCS.GUEST_CR0, (value & ~CR0.IGNORED) | kept);
  return undefined;
}

function writeCr4(vcpu: RunningVcpu, value: bigint): Refusal | undefined {
  const { module, vmcs, td } = vcpu;
  const { msrs } = module.platform!;
  const mustBeOne = msrs.get(MODULE_MSR.VMX_CR4_FIXED0)! & ~CR4.VMXE;
  if (!hasAll(value, mustBeOne) || hasAny(value, ~msrs.get(MODULE_MSR.VMX_CR4_FIXED1)!)) return 'gp';
  if (hasAny(value, missingFeatures(vcpu))) return 'gp';
  if (hasAny(value, CR4.CET) && !hasAny(vmcs.read(VMCS.GUEST_CR0), CR0.WP)) return 'gp';
  const machineChecks = value & CR4.MCE;
  if (!vcpu.hasControl(TD_CTLS.REDUCE_VE)) {
    return machineChecks === 0n ? VE_CATEGORY.CONFIG_PARAVIRT : VE_CATEGORY.UNSUPPORTED_FEATURE;
  }
  const shadow = vmcs.read(VMCS.CR4_SHADOW);
  if (td.cpuidFlag(CPUID_FLAG.NO_MCE) && !hasAny(shadow, CR4.MCE) && machineChecks !== 0n) return 'gp';
  vmcs.write(VMCS.CR4_SHADOW, (shadow & ~CR4.MCE) | machineChecks);
  return undefined;
}

/** CR4 bits of features that the TD does not have. */
function missingFeatures(vcpu: RunningVcpu): bigint {
  const xfam = vcpu.tdcs.u64(TDCS.XFAM);
  let missing: bigint = CR4.KEY_LOCKER;
  if (!hasAny(xfam, XFAM.PKRU)) missing |= CR4.PKE;
  if (!hasAll(xfam, XFAM.CET)) missing |= CR4.CET;
  if (!hasAny(xfam, XFAM.UINTR)) missing |= CR4.UINTR;
  if (!vcpu.hasAttribute(ATTRIBUTES.PKS)) missing |= CR4.PKS;
  if (!vcpu.hasAttribute(ATTRIBUTES.LASS)) missing |= CR4.LASS;
  return missing;
}

/** XSETBV. @internal */
export function xsetbvExit(vcpu: RunningVcpu): void {
  const { d } = vcpu.regs;
  const value = (BigInt(d[2 * RDX]!) << 32n) | BigInt(d[2 * RAX]!);
  if (d[2 * RCX] !== 0 || !isXcr0Valid(vcpu, value)) injectGp(vcpu);
  else vcpu.tdvps.setU64(TDVPS.XCR0, value);
}

/** Components that the TD has, in the combinations that the CPU accepts. */
function isXcr0Valid({ tdcs }: RunningVcpu, value: bigint): boolean {
  if (hasAny(value, ~(XCR0_COMPONENTS & tdcs.u64(TDCS.XFAM))) || !hasAny(value, XCR0.X87)) return false;
  if (hasAny(value, XCR0.AVX) && !hasAny(value, XCR0.SSE)) return false;
  if (hasAny(value, XFAM.AVX512) && !hasAll(value, XFAM.AVX512 | XCR0.AVX)) return false;
  return !hasAny(value, XFAM.AMX) || hasAll(value, XFAM.AMX);
}
