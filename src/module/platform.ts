/** What TDH.SYS.INIT learns of the platform: the snapshot that LP.INIT compares with and later leaves read. */
import type { AddressRange } from '../abi/address.ts';
import type { CpuidQuad } from '../abi/cpuid-policy.ts';
import type { HandoffInfo } from '../machine/seam.ts';

/** Subleaf operand of CPUID for a leaf without subleaves; the module passes it in ECX (docs/rules/sys-init.md). @public */
export const NO_SUBLEAF = 0xffff_ffff;

/** Key of a leaf in `CpuFacts.cpuid`. @public */
export function cpuidKey(leaf: number, subleaf = NO_SUBLEAF): number {
  return leaf * 0x100 + (subleaf & 0xff);
}

/** Capabilities of the CPU that later rules ask for by name. @public */
export interface CpuFeatures {
  /** Hardware lock elision and restricted transactional memory: CPUID(7.0).EBX bits 4 and 11. */
  readonly hle: boolean;
  readonly rtm: boolean;
  /** CPUID(7.0).ECX bits 5 and 16. */
  readonly waitpkg: boolean;
  readonly la57: boolean;
  /** CPUID(7.1).EAX bits 6, 8 and 26. */
  readonly lass: boolean;
  readonly perfmonExtLeaf: boolean;
  readonly lam: boolean;
  /** CPUID(7.2).EDX bit 3. */
  readonly ddpd: boolean;
  /** CPUID(0xD.1).EAX bit 4. */
  readonly xfd: boolean;
}

/** How an x2APIC id divides (CPUID leaf 0x1F). @public */
export interface X2ApicLayout {
  /** Bits to shift right for the id of the core. */
  readonly coreShift: number;
  /** Mask of the core's number after that shift. */
  readonly coreMask: number;
  /** Bits to shift right for the number of the package. */
  readonly packageShift: number;
}

/** What CPUID told. @public */
export interface CpuFacts {
  /** Sampled leaves by `cpuidKey`; leaf 1 has the platform's lowest stepping, leaves the CPU lacks are zero. */
  readonly cpuid: ReadonlyMap<number, CpuidQuad>;
  readonly lastExtendedLeaf: number;
  readonly features: CpuFeatures;
  /** Width of a physical address in bits. */
  readonly maxPa: number;
  /** XCR0 bits (user state) and IA32_XSS bits (supervisor state) that the CPU has and the module knows. */
  readonly xcr0Mask: number;
  readonly xssMask: number;
  /** Components, by XFAM bit, whose first use XFD can intercept. */
  readonly xfdFaultingMask: number;
  /** Fixed-function performance counters, one bit each. */
  readonly fixedCounters: number;
  readonly crystalHz: number;
  readonly tscHz: number;
  /** Deepest last-branch record stack in entries. */
  readonly maxLbrDepth: number;
  readonly x2apic: X2ApicLayout;
}

/** How physical addresses carry KeyIDs, and where the module itself lives. @public */
export interface KeyIdLayout {
  /** Lowest bit of a physical address that belongs to the KeyID. */
  readonly hkidStartBit: number;
  /** The KeyID's bits of a physical address. */
  readonly hkidMask: bigint;
  /** First and last private KeyID. */
  readonly privateHkidMin: number;
  readonly privateHkidMax: number;
  readonly seamrr: AddressRange;
  /** Parts into which TDH.PHYMEM.CACHE.WB divides a package's cache. */
  readonly cacheSubBlocks: bigint;
}

/** VM-execution controls of a TD's VMCS, with the bits that this CPU forces to one. @public */
export interface VmxControls {
  readonly pinBased: number;
  readonly procBased: number;
  readonly procBased2: number;
  readonly exit: number;
  readonly entry: number;
}

/** Bits of a TD's configuration: zero in `fixed0` must be 0, one in `fixed1` must be 1. @public */
export interface FixedMasks {
  readonly attributesFixed0: bigint;
  readonly attributesFixed1: bigint;
  readonly xfamFixed0: bigint;
  readonly xfamFixed1: bigint;
  readonly configFlagsFixed0: bigint;
  readonly configFlagsFixed1: bigint;
}

/** @public */
export interface PlatformSnapshot extends CpuFacts, KeyIdLayout, FixedMasks {
  /** Logical processors and packages that MCHECK counted: LP.INIT is due on all of them. */
  readonly lps: number;
  readonly packages: number;
  /** Family, model and lowest stepping of the packages, as CPUID(1).EAX. */
  readonly fms: number;
  /** One of the first Granite Rapids steppings, which lack what some checks ask for. */
  readonly earlyStepping: boolean;
  /** Sampled MSRs by address; all but MISC_ENABLE must read the same on every LP. */
  readonly msrs: ReadonlyMap<number, bigint>;
  readonly vmx: VmxControls;
  /** The same for the VMCS of a TD's L2 VM. */
  readonly vmxL2: VmxControls;
  /** Bitmap of the SEAMOPS leaves. */
  readonly seamCapabilities: number;
  /** Hand-off versions and pages, as the loader gave them to SYS.INIT. */
  readonly handoff: Readonly<HandoffInfo>;
  /** Physical address, KeyID bits included, of the line for fatal-error details; null where none was asked for. */
  readonly fatalInfoHpa: bigint | null;
}

/** A logical processor after LP.INIT: where it is, cut from its x2APIC id. @public */
export interface InitializedLp {
  readonly package: number;
  readonly core: number;
}

/** What tells shared buffers from private memory. @public */
export type SharedHpaRules = Pick<KeyIdLayout, 'hkidStartBit' | 'hkidMask' | 'privateHkidMin' | 'seamrr'>;

/** True when `hpa` is a multiple of `align`, an address of 52 bits, outside the SEAM range and under a shared KeyID. @public */
export function isSharedHpa(platform: SharedHpaRules, hpa: bigint, align: number): boolean {
  if (hpa % BigInt(align) !== 0n || hpa >> 52n !== 0n) return false;
  if (isInSeamRange(platform, Number(hpa & ~platform.hkidMask), align)) return false;
  return hkidOf(platform, hpa) < platform.privateHkidMin;
}

/** True when some of the `bytes` bytes at `address` are in the SEAM range. @public */
export function isInSeamRange({ seamrr }: SharedHpaRules, address: number, bytes: number): boolean {
  return address < seamrr.end && seamrr.start < address + bytes;
}

/** The KeyID in a physical address. @public */
export function hkidOf(platform: SharedHpaRules, hpa: bigint): number {
  return Number((hpa & platform.hkidMask) >> BigInt(platform.hkidStartBit));
}
