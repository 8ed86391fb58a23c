/** The CPUID and MSR tables of a machine, made from its description. */
import { type AddressRange, hex, overlaps } from '../abi/address.ts';
import {
  keyIdBits,
  type MachineDescription,
  NATIVE_PACKAGE_SHIFT,
  packageShift,
  type SevDescription,
} from './description.ts';
import { type CpuidResult, NATIVE_CPUID, NATIVE_MSRS } from './native-platform.ts';
import type { McheckInfo } from './seam.ts';

/** MSR addresses the host side and the module read by name. @public */
export const MSR = {
  MKTME_KEYID_PARTITIONING: 0x87,
  SMRR_PHYSMASK: 0x1f3,
  VMX_BASIC: 0x480,
  TME_CAPABILITY: 0x981,
  TME_ACTIVATE: 0x982,
  SEAMRR_BASE: 0x1400,
  SEAMRR_MASK: 0x1401,
  SYSCFG: 0xc001_0010,
  RMP_BASE: 0xc001_0132,
  RMP_END: 0xc001_0133,
} as const;

/** SEAMRR_BASE bit 3: configured; SEAMRR_MASK bits 10 and 11: locked and enabled. */
const SEAMRR_CONFIGURED = 1n << 3n;
const SEAMRR_LOCKED_ENABLED = 0b11n << 10n;
/** TME_CAPABILITY without the KeyID counts: AES-XTS-128 and AES-XTS-256 supported, integrity included. */
const TME_ALGORITHMS = 0x5n;
/** TME_ACTIVATE without the KeyID bits (35:32 all, 39:36 reserved for TDX): locked and enabled, default and MKTME algorithms allowed. */
const TME_ACTIVATED = 0x5_0000_0000_0003n;

/** Where the default MSRs put the SMM range, and its valid bit (SMRR_PHYSMASK bit 11). */
const SMM_RANGE: AddressRange = { start: 0xd000_0000, end: 0xe000_0000 };
const SMRR_VALID = 1n << 11n;

/** CPUID(4).EAX[25:14]: ids that share the cache, less one. */
const L3_SHARING_SHIFT = 14;
const L3_SHARING = 0xfff << L3_SHARING_SHIFT;

/** CPUID(0x8000001F).EAX: SME, SEV, SEV-ES, SNP, VMPLs, coherent caches, DebugSwap. */
const SEV_FEATURES = 0x443b;

/** CPUID by `leaf.subleaf`, with `*` for any subleaf. @public */
export type CpuidTable = Map<string, CpuidResult>;

/** @public */
export function cpuidTable(description: MachineDescription): CpuidTable {
  const table: CpuidTable = new Map(Object.entries(NATIVE_CPUID));
  const [eax, ebx, ecx, edx] = NATIVE_CPUID['80000008.*']!;
  const linearBits = eax & 0xff00;
  table.set('80000008.*', [linearBits | description.physicalAddressBits, ebx, ecx, edx]);
  setTopology(table, packageShift(description.processors) ?? NATIVE_PACKAGE_SHIFT);
  if (description.sev !== undefined) setSev(table, description.sev);
  return table;
}

/** Leaf 0x8000001F: SME, SEV, SEV-ES, SNP and coherent caches; the C-bit; numbers of ASIDs. */
function setSev(table: CpuidTable, { cBit, maxAsid, minSevAsid }: SevDescription): void {
  table.set('8000001f.*', [SEV_FEATURES, cBit, maxAsid, minSevAsid]);
}

/** Leaves 0xB and 0x1F say how many id bits a package has, and CPUID(4) that its processors share the L3 cache. */
function setTopology(table: CpuidTable, shift: number): void {
  for (const leaf of ['b.1', '1f.1']) {
    const [, ...rest] = table.get(leaf)!;
    table.set(leaf, [shift, ...rest]);
  }
  const [eax, ...rest] = table.get('4.3')!;
  table.set('4.3', [((eax & ~L3_SHARING) | ((2 ** shift - 1) << L3_SHARING_SHIFT)) >>> 0, ...rest]);
}

/** Values of the MSRs that exist; `MKTME_KEYID_PARTITIONING` is missing where TDX is off in the BIOS. @public */
export function msrTable(description: MachineDescription): Map<number, bigint> {
  const msrs = new Map(Object.entries(NATIVE_MSRS).map(([address, value]) => [Number(address), value]));
  const { keyIds, seamrr, sev } = description;
  if (keyIds !== null) {
    const bits = BigInt(keyIdBits(keyIds));
    msrs.set(MSR.MKTME_KEYID_PARTITIONING, BigInt(keyIds.mktme) | (BigInt(keyIds.tdx) << 32n));
    msrs.set(MSR.TME_CAPABILITY, TME_ALGORITHMS | (bits << 32n) | (((1n << bits) - 1n) << 36n));
    const privateBits = BigInt(Math.ceil(Math.log2(Math.max(keyIds.tdx, 1))));
    msrs.set(MSR.TME_ACTIVATE, TME_ACTIVATED | (bits << 32n) | (privateBits << 36n));
  }
  // Firmware keeps the SMM range outside memory it converts; a machine with memory there has it elsewhere.
  if (description.cmrs.some((cmr) => overlaps(cmr, SMM_RANGE))) {
    msrs.set(MSR.SMRR_PHYSMASK, msrs.get(MSR.SMRR_PHYSMASK)! & ~SMRR_VALID);
  }
  if (sev !== undefined) {
    msrs.set(MSR.RMP_BASE, BigInt(sev.rmp.start));
    msrs.set(MSR.RMP_END, BigInt(sev.rmp.end - 1));
  }
  if (seamrr !== null) {
    const widthMask = (1n << BigInt(description.physicalAddressBits)) - 1n;
    msrs.set(MSR.SEAMRR_BASE, BigInt(seamrr.start) | SEAMRR_CONFIGURED);
    msrs.set(MSR.SEAMRR_MASK, (widthMask & ~BigInt(seamrr.end - seamrr.start - 1)) | SEAMRR_LOCKED_ENABLED);
  }
  return msrs;
}

/** What MCHECK finds on the machine: TDX with owner bits only, and both pairs of SMM range registers. @public */
export function mcheckInfo(description: MachineDescription, cpuid: CpuidTable): McheckInfo {
  const present = description.processors.filter((cpu) => cpu.present);
  const [fms] = cpuid.get('1.*')!;
  const packageFms = Array.from(new Set(present.map((cpu) => cpu.package)), () => fms);
  return { lps: present.length, packageFms, integrity: false, smrr2: true };
}

/** Key of a leaf that answers alike for every subleaf, and of one subleaf. @public */
export function cpuidKeys(leaf: number, subleaf: number): readonly [exact: string, any: string] {
  const name = hex(leaf >>> 0).slice(2);
  return [`${name}.${(subleaf >>> 0).toString(16)}`, `${name}.*`];
}
