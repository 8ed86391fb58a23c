/**
 * A machine as plain data: what hardware and firmware give a host kernel, nothing of what the kernel makes of
 * it. All addresses and sizes are bytes in `number`; ranges are half open.
 */
import type { AddressRange } from '../abi/address.ts';

/** What a range of physical memory is made of. @public */
export type MemoryKind = 'ram' | 'legacy-pmem' | 'nvdimm' | 'cxl' | 'soft-reserved';

/** A range of memory slots: populated, or announced by the firmware for later. @public */
export interface MemoryRange extends AddressRange {
  readonly node: number;
  readonly kind: MemoryKind;
  readonly state: 'present' | 'hot-pluggable';
}

/** Entry types of the firmware's memory map, by the words kernels print. @public */
export type E820Type =
  | 'usable'
  | 'reserved'
  | 'acpi-data'
  | 'acpi-nvs'
  | 'unusable'
  | 'pmem'
  | 'legacy-pmem'
  | 'soft-reserved';

/** One entry of the firmware's memory map. @public */
export interface E820Entry extends AddressRange {
  readonly type: E820Type;
}

/** One memory affinity entry of the SRAT; `node` is the kernel's number for the proximity domain. @public */
export interface SratEntry extends AddressRange {
  readonly proximityDomain: number;
  readonly node: number;
  readonly hotplug: boolean;
  readonly nonVolatile: boolean;
}

/** One logical processor. `present` is false for a socket or core that can be hot-added. @public */
export interface ProcessorDescription {
  readonly apicId: number;
  readonly package: number;
  readonly node: number;
  readonly present: boolean;
}

/** Counts of MSR 0x87: shared (MKTME) KeyIDs 1..mktme, private (TDX) KeyIDs mktme+1..mktme+tdx. @public */
export interface KeyIdPartition {
  readonly mktme: number;
  readonly tdx: number;
}

/** Bits of the physical address that carry a KeyID under this partition. @public */
export function keyIdBits(keys: KeyIdPartition | null): number {
  return keys === null ? 0 : Math.ceil(Math.log2(keys.mktme + keys.tdx + 1));
}

/** P-SEAMLDR as the BIOS loaded it. @public */
export interface SeamLoaderDescription {
  readonly version: string;
  readonly remainingUpdates: number;
}

/** SEV-SNP of an AMD machine, as its firmware set it up. @public */
export interface SevDescription {
  /** Bit of a guest physical address that makes an access private. */
  readonly cBit: number;
  /** ASIDs of encrypted guests are 1 to this one. */
  readonly maxAsid: number;
  /** First ASID of guests without encrypted state; SNP guests have the ones below. */
  readonly minSevAsid: number;
  /** Memory that the BIOS reserved for the reverse map table. */
  readonly rmp: AddressRange;
}

/** The whole machine. @public */
export interface MachineDescription {
  readonly name: string;
  readonly cpuModel: CpuModel;
  readonly physicalAddressBits: number;
  readonly processors: readonly ProcessorDescription[];
  readonly memory: readonly MemoryRange[];
  readonly e820: readonly E820Entry[];
  readonly srat: readonly SratEntry[];
  /** Distances between nodes, by number of one and the other, as in the SLIT; absent where the firmware has none. */
  readonly slit?: readonly (readonly number[])[];
  /** Convertible memory regions found by MCHECK, ascending; at most 32. */
  readonly cmrs: readonly AddressRange[];
  /** Null where the BIOS did not enable TDX: MSR 0x87 then faults. */
  readonly keyIds: KeyIdPartition | null;
  /** The SEAM range register pair; null where not configured. */
  readonly seamrr: AddressRange | null;
  /** Release of the module image in the SEAM range ("1.5.25"); null where none is loaded. */
  readonly module: string | null;
  readonly seamLoader: SeamLoaderDescription | null;
  /** Absent on machines without SEV-SNP, and where the BIOS did not enable it. */
  readonly sev?: SevDescription;
}

/** CPU families the model knows; they differ in errata. @public */
export type CpuModel = 'sapphire-rapids' | 'emerald-rapids' | 'granite-rapids' | 'sierra-forest' | 'genoa';

/** Models with the partial-write erratum (Linux host rules 0: SPR-X, EMR-X). @public */
export const PARTIAL_WRITE_ERRATUM: ReadonlySet<CpuModel> = new Set(['sapphire-rapids', 'emerald-rapids']);

/** MCHECK's limit on convertible memory regions (architectural). @public */
export const MAX_CMRS = 32;

/** Bits of an x2APIC id below the package number on the machine the CPUID values are of. @internal */
export const NATIVE_PACKAGE_SHIFT = 7;
/** A core has two logical processors, so a package begins above the lowest bit. */
const LEAST_SHIFT = 1;
/** CPUID(4) has 12 bits for the ids that share a cache, and a package's processors share theirs. */
const MOST_SHIFT = 12;

/**
 * Bits of an x2APIC id below its package number: what the native machine has where that gives every package its
 * own number, else as many as tell the packages apart. Null when no number of bits does.
 * @public
 */
export function packageShift(processors: readonly ProcessorDescription[]): number | null {
  const native = packageIds(processors, NATIVE_PACKAGE_SHIFT);
  if (native !== null && [...native].every(([number, id]) => number === id)) return NATIVE_PACKAGE_SHIFT;
  for (let shift = MOST_SHIFT; shift >= LEAST_SHIFT; shift--) {
    if (packageIds(processors, shift) !== null) return shift;
  }
  return null;
}

/** What is left of the x2APIC ids of every package; null when that is not one id for each. */
function packageIds(
  processors: readonly ProcessorDescription[],
  shift: number,
): ReadonlyMap<number, number> | null {
  const ids = new Map<number, number>();
  for (const { apicId, package: number } of processors) {
    const id = Math.floor(apicId / 2 ** shift);
    if ((ids.get(number) ?? id) !== id) return null;
    ids.set(number, id);
  }
  return new Set(ids.values()).size === ids.size ? ids : null;
}
