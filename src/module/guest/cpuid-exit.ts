/** CPUID as a TD executes it (module facts 11). */
import { RAX, RBX, RCX, RDX } from '../../abi/registers.ts';
import { EXIT } from '../../abi/vm-exit.ts';
import { CPUID_LEAF, EAX, EBX, ECX, EDX } from '../platform-cpu-facts.ts';
import { cpuidIndex, isFixed0Leaf, loadCpuid } from '../td/cpuid-values.ts';
import { hasAny, TD_CTLS } from '../td/features.ts';
import { CPUID_FLAG, TDCS, TDVPS } from '../td/layout.ts';
import { VMCS } from '../td/vmcs.ts';
import { injectVe, VE_CATEGORY, type VeCategory } from './injection.ts';
import { isIn64BitMode } from './long-mode.ts';
import type { RunningVcpu } from './running-vcpu.ts';

/** Leaves for virtual machine monitors: never the module's to answer. */
const VMM_LEAVES = { first: 0x4000_0000, last: 0x4fff_ffff } as const;
const LAST_BASE_LEAF = 0x23;
const LAST_EXTENDED_LEAF = 0x8000_0008;
const FIRST_EXTENDED_LEAF = 0x8000_0000;
const TOPOLOGY_LEAVES: ReadonlySet<number> = new Set([0xb, 0x1f]);
const CACHE_SUBLEAVES = 4;
/** CPUID(4).EAX bits 31:14: ids that share the cache, and cores. */
const CACHE_SHARING = 0xffff_c000;
const TSX_CPUID_CLEAR = 1n << 1n;
const CR4_OSXSAVE = 1n << 18n;
const CR4_PKE = 1n << 22n;

type Flag = (typeof CPUID_FLAG)[keyof typeof CPUID_FLAG];

/** Leaves that cause a #VE unless the TD reduces #VEs, and the feature that keeps it even then. */
const REDUCIBLE: ReadonlyMap<number, Flag | undefined> = new Map([
  [0x6, undefined],
  [0x9, CPUID_FLAG.DCA],
  [0xc, undefined],
  [0xf, CPUID_FLAG.RDT_M],
  [0x10, CPUID_FLAG.RDT_A],
  [0x16, undefined],
  [0x17, undefined],
  [0x1b, CPUID_FLAG.PCONFIG],
  [0x8000_0002, undefined],
  [0x8000_0003, undefined],
  [0x8000_0004, undefined],
  [0x8000_0005, undefined],
]);

/** Answers CPUID in the guest's registers, or injects a #VE. @internal */
export function cpuidExit(vcpu: RunningVcpu): void {
  const { d, q } = vcpu.regs;
  const values = answer(vcpu, d[2 * RAX]!, d[2 * RCX]!);
  if (typeof values === 'number') {
    injectVe(vcpu, values, { reason: EXIT.CPUID });
    return;
  }
  [RAX, RBX, RCX, RDX].forEach((register, i) => {
    q[register] = BigInt(values[i]!);
  });
}

/** The four values, or the category of the #VE. */
function answer(vcpu: RunningVcpu, requested: number, subleaf: number): Uint32Array | VeCategory {
  const { tdcs, tdvps } = vcpu;
  if (requested >= VMM_LEAVES.first && requested <= VMM_LEAVES.last) return VE_CATEGORY.NON_CONFIG_PARAVIRT;
  const supervisor = vcpu.cpl === 0;
  if (tdvps.flag(supervisor ? TDVPS.CPUID_SUPERVISOR_VE : TDVPS.CPUID_USER_VE))
    return VE_CATEGORY.CONFIG_PARAVIRT;
  const leaf = existingLeaf(vcpu, requested);
  const index = cpuidIndex(leaf, subleaf);
  const reduceVe = vcpu.hasControl(TD_CTLS.REDUCE_VE);
  if (index < 0) {
    if (isFixed0Leaf(tdcs.u64(TDCS.CPUID_FIXED0_BITMAP), leaf))
      return adapt(vcpu, leaf, subleaf, new Uint32Array(4));
    return reduceVe ? unknownLeaf(vcpu, leaf, subleaf) : VE_CATEGORY.CONFIG_PARAVIRT;
  }
  if (!reduceVe && !tdcs.flag(TDCS.CPUID_VALID + index)) return VE_CATEGORY.CONFIG_PARAVIRT;
  const control = tdvps.u8(TDVPS.CPUID_CONTROL + index);
  if ((control & (supervisor ? 1 : 2)) !== 0) return VE_CATEGORY.CONFIG_PARAVIRT;
  return adapt(vcpu, leaf, subleaf, loadCpuid(tdcs, index));
}

/** Leaves beyond the last of their range read as the last base leaf, as on the CPU. */
function existingLeaf({ tdcs }: RunningVcpu, leaf: number): number {
  const lastBase = tdcs.u32(TDCS.CPUID_LAST_BASE_LEAF) || LAST_BASE_LEAF;
  const lastExtended = tdcs.u32(TDCS.CPUID_LAST_EXTENDED_LEAF) || LAST_EXTENDED_LEAF;
  tdcs.setU32(TDCS.CPUID_LAST_BASE_LEAF, lastBase);
  tdcs.setU32(TDCS.CPUID_LAST_EXTENDED_LEAF, lastExtended);
  const beyond = leaf > lastExtended || (leaf > lastBase && leaf < FIRST_EXTENDED_LEAF);
  return beyond ? lastBase : leaf;
}

function unknownLeaf(vcpu: RunningVcpu, leaf: number, subleaf: number): Uint32Array {
  return TOPOLOGY_LEAVES.has(leaf)
    ? Uint32Array.of(0, 0, subleaf & 0xff, x2ApicId(vcpu))
    : new Uint32Array(4);
}

function x2ApicId({ tdcs, tdvps }: RunningVcpu): number {
  return tdcs.u32(TDCS.X2APIC_IDS + 4 * tdvps.u32(TDVPS.VCPU_INDEX));
}

/** What depends on more than the stored values. */
function adapt(
  vcpu: RunningVcpu,
  leaf: number,
  subleaf: number,
  values: Uint32Array,
): Uint32Array | VeCategory {
  if (REDUCIBLE.has(leaf)) {
    const flag = REDUCIBLE.get(leaf);
    const kept = flag !== undefined && vcpu.td.cpuidFlag(flag);
    return !vcpu.hasControl(TD_CTLS.REDUCE_VE) || kept ? VE_CATEGORY.CONFIG_PARAVIRT : values;
  }
  if (leaf === 2) return vcpu.hasControl(TD_CTLS.VIRT_CPUID2) ? values : VE_CATEGORY.CONFIG_PARAVIRT;
  if (TOPOLOGY_LEAVES.has(leaf)) {
    if (!vcpu.hasControl(TD_CTLS.ENUM_TOPOLOGY)) return VE_CATEGORY.CONFIG_PARAVIRT;
    values[EDX] = x2ApicId(vcpu);
  } else if (leaf === CPUID_LEAF.VERSION) adaptVersion(vcpu, values);
  else if (leaf === CPUID_LEAF.CACHE) adaptCache(vcpu, subleaf, values);
  else if (leaf === CPUID_LEAF.FEATURES && subleaf === 0) adaptFeatures(vcpu, values);
  else if (leaf === CPUID_LEAF.XSAVE && subleaf <= 1) values[EBX] = vcpu.lp.cpuid(leaf, subleaf)[EBX];
  else if (leaf === 0x8000_0001) assignBit(values, EDX, 11, isIn64BitMode(vcpu));
  return values;
}

function assignBit(values: Uint32Array, register: number, position: number, on: boolean): void {
  const mask = 1 << position;
  values[register] = on ? values[register]! | mask : values[register]! & ~mask;
}

function adaptVersion(vcpu: RunningVcpu, values: Uint32Array): void {
  const { td, tdvps, vmcs } = vcpu;
  assignBit(values, ECX, 18, td.cpuidFlag(CPUID_FLAG.DCA));
  assignBit(values, ECX, 24, td.cpuidFlag(CPUID_FLAG.TSC_DEADLINE));
  assignBit(values, ECX, 7, td.cpuidFlag(CPUID_FLAG.EST));
  assignBit(values, ECX, 8, td.cpuidFlag(CPUID_FLAG.TM2));
  assignBit(values, EDX, 7, !td.cpuidFlag(CPUID_FLAG.NO_MCE));
  assignBit(values, EDX, 14, !td.cpuidFlag(CPUID_FLAG.NO_MCA));
  assignBit(values, EDX, 12, !td.cpuidFlag(CPUID_FLAG.NO_MTRR));
  assignBit(values, EDX, 22, td.cpuidFlag(CPUID_FLAG.ACPI));
  assignBit(values, ECX, 27, hasAny(vmcs.read(VMCS.GUEST_CR4), CR4_OSXSAVE));
  const apicId = vcpu.hasControl(TD_CTLS.ENUM_TOPOLOGY) ? x2ApicId(vcpu) : tdvps.u32(TDVPS.VCPU_INDEX);
  values[EBX] = (values[EBX]! & 0x00ff_ffff) | ((apicId & 0xff) << 24);
}

/** A TD that reduces #VEs sees the real caches, shared as its creator says. */
function adaptCache(vcpu: RunningVcpu, subleaf: number, values: Uint32Array): void {
  const { tdcs } = vcpu;
  if (!vcpu.hasControl(TD_CTLS.REDUCE_VE) || subleaf >= CACHE_SUBLEAVES) return;
  const sharing = values[EAX]! & CACHE_SHARING;
  for (let i = 0; i < 4; i++) values[i] = tdcs.u32(TDCS.CPUID4_NATIVE_VALUES + 16 * subleaf + 4 * i);
  values[EAX] = (values[EAX]! & ~CACHE_SHARING) | sharing;
}

function adaptFeatures(vcpu: RunningVcpu, values: Uint32Array): void {
  const { td, vmcs, tdvps } = vcpu;
  assignBit(values, EBX, 15, td.cpuidFlag(CPUID_FLAG.RDT_A));
  assignBit(values, EBX, 12, td.cpuidFlag(CPUID_FLAG.RDT_M));
  assignBit(values, ECX, 13, td.cpuidFlag(CPUID_FLAG.TME));
  assignBit(values, EDX, 18, td.cpuidFlag(CPUID_FLAG.PCONFIG));
  assignBit(values, EDX, 30, !td.cpuidFlag(CPUID_FLAG.NO_CORE_CAPABILITIES));
  if (td.cpuidFlag(CPUID_FLAG.TSX) && hasAny(tdvps.u64(TDVPS.IA32_TSX_CTRL), TSX_CPUID_CLEAR)) {
    assignBit(values, EBX, 4, false);
    assignBit(values, EBX, 11, false);
  }
  assignBit(values, ECX, 4, hasAny(vmcs.read(VMCS.GUEST_CR4), CR4_PKE));
}
