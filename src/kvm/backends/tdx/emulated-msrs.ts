/** MSRs that a TD asks the host for (Linux host rules 2.5): a fixed list, three of them read only. */
import type { TdxVcpu } from './tdx-vcpu.ts';

const APIC_BASE = 0x1b;
const FEAT_CTL = 0x3a;
const EFER = 0xc000_0080;
const READ_ONLY: ReadonlySet<number> = new Set([APIC_BASE, EFER, FEAT_CTL]);
/** IA32_APIC_BASE: enabled, in x2APIC mode, and a flag for the first vCPU. */
const APIC_BASE_X2APIC = 0xfee0_0c00n;
const APIC_BASE_BSP = 1n << 8n;
const FEAT_CTL_LOCKED = 1n;
/** What KVM has in EFER for a TD: SCE, LME, LMA, NX. */
const EFER_64_BIT = 0xd01n;
/** KVM's banks of machine-check registers. */
const MCE_BANKS = 32;

/** CMCI, timer, thermal, performance, LINT0, LINT1, error; bit 16 masks. */
const LVT_REGISTERS: readonly number[] = [0x82f, 0x832, 0x833, 0x834, 0x835, 0x836, 0x837];
const LVT_MASKED = 1n << 16n;

/** Ranges [first, last] of registers that KVM emulates for TDs. */
const EMULATED: readonly (readonly [first: number, last: number])[] = [
  [0x8b, 0x8b], // UCODE_REV
  [0x10a, 0x10a], // ARCH_CAPABILITIES
  [0x1fc, 0x1fc], // POWER_CTL
  [0x277, 0x277], // PAT
  [0xfe, 0xfe], // MTRRcap
  [0x200, 0x26f], // MTRRs
  [0x2ff, 0x2ff], // MTRRdefType
  [0x6e0, 0x6e0], // TSC_DEADLINE
  [0x1a0, 0x1a0], // MISC_ENABLE
  [0xce, 0xce], // PLATFORM_INFO
  [0x140, 0x140], // MISC_FEATURES_ENABLES
  [APIC_BASE, APIC_BASE],
  [EFER, EFER],
  [FEAT_CTL, FEAT_CTL],
  [0x179, 0x17b], // MCG_CAP, MCG_STATUS, MCG_CTL
  [0x4d0, 0x4d0], // MCG_EXT_CTL
  [0x400, 0x400 + 4 * MCE_BANKS - 1],
  [0x280, 0x280 + MCE_BANKS - 1],
  [0x4b56_4d05, 0x4b56_4d05], // KVM_POLL_CONTROL
  // x2APIC registers that the processor does not virtualise: ID, version, LDR, SIVR, ESR, LVTs, ICR, timer.
  [0x802, 0x803],
  [0x80d, 0x80d],
  [0x80f, 0x80f],
  [0x828, 0x828],
  [0x82f, 0x830],
  [0x832, 0x839],
  [0x83e, 0x83e],
];

/** The register's value, or null where there is none for a TD. @internal */
export function readMsr({ vcpu }: TdxVcpu, index: number): bigint | null {
  if (!isEmulated(index) || !vcpu.vm.msrFilter.allows(index, 'read')) return null;
  if (index === APIC_BASE) return APIC_BASE_X2APIC | (vcpu.id === 0 ? APIC_BASE_BSP : 0n);
  if (index === FEAT_CTL) return FEAT_CTL_LOCKED;
  if (index === EFER) return EFER_64_BIT;
  return vcpu.msrs.get(index) ?? initialValues(vcpu.id).get(index) ?? 0n;
}

/** False where a TD cannot write it. @internal */
export function writeMsr({ vcpu }: TdxVcpu, index: number, value: bigint): boolean {
  if (READ_ONLY.has(index) || !isEmulated(index)) return false;
  if (!vcpu.vm.msrFilter.allows(index, 'write')) return false;
  vcpu.msrs.set(index, value);
  return true;
}

function isEmulated(index: number): boolean {
  return EMULATED.some(([first, last]) => first <= index && index <= last);
}

/** After reset: the APIC's id and version, its logical destination, all interrupts masked, write-back by default. */
function initialValues(id: number): ReadonlyMap<number, bigint> {
  return new Map([
    [0x277, 0x0007_0406_0007_0406n],
    [0x802, BigInt(id)],
    [0x803, 0x0005_0014n],
    [0x80d, (BigInt(id >> 4) << 16n) | (1n << BigInt(id & 15))],
    [0x80f, 0xffn],
    ...LVT_REGISTERS.map((register) => [register, LVT_MASKED] as const),
  ]);
}
