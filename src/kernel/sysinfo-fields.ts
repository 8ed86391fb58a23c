/**
 * The global metadata the host kernel reads (Linux host rules 1.7), as a table: a consumer that needs another
 * field adds a row here and a member to `TdxSysinfo`.
 */
import { MAX_CMRS } from '../machine/description.ts';
import type { TdxSysinfo } from './sysinfo.ts';

type Sections = Omit<TdxSysinfo, 'cmrs'>;
/** `section.member` of TdxSysinfo. */
type MemberPath = { [S in keyof Sections]: `${S}.${keyof Sections[S] & string}` }[keyof Sections];

/** A single field. @internal */
export interface ScalarField {
  readonly id: bigint;
  readonly path: MemberPath;
  /** Bit of TDX_FEATURES0 without which the module has no such field; a field without one is mandatory. */
  readonly feature?: number;
}

/** A field with one element after the other. @internal */
export interface ArrayField {
  /** Id of element 0; the others follow. */
  readonly id: bigint;
  readonly path: MemberPath;
  /** Member that says how many entries there are. */
  readonly countPath: MemberPath;
  /** Elements per entry. */
  readonly perEntry: number;
  /** Entries the table can have. */
  readonly limit: number;
}

/** @internal */
export const FEATURES0_FIELD = 0x0a00_0003_0000_0008n;

const TD_PRESERVING = 1;
const TDX_IO = 6;
const DYNAMIC_PAMT = 36;

/** @internal */
export const SCALAR_FIELDS: readonly ScalarField[] = [
  { id: 0x0800_0001_0000_0003n, path: 'version.minor' },
  { id: 0x0800_0001_0000_0004n, path: 'version.major' },
  { id: 0x0800_0001_0000_0005n, path: 'version.update' },
  { id: 0x0800_0001_0000_0006n, path: 'version.internal' },
  { id: 0x8800_0002_0000_0001n, path: 'version.buildDate' },
  { id: 0x8800_0001_0000_0002n, path: 'version.buildNumber' },
  { id: 0x0800_0002_0000_0000n, path: 'version.vendorId' },
  { id: 0x0a00_0002_0000_0000n, path: 'version.attributes' },
  { id: FEATURES0_FIELD, path: 'features.features0' },
  { id: 0x9100_0001_0000_0008n, path: 'tdmr.maxTdmrs' },
  { id: 0x9100_0001_0000_0009n, path: 'tdmr.maxReservedPerTdmr' },
  { id: 0x9100_0001_0000_0010n, path: 'tdmr.pamt4kEntrySize' },
  { id: 0x9100_0001_0000_0011n, path: 'tdmr.pamt2mEntrySize' },
  { id: 0x9100_0001_0000_0012n, path: 'tdmr.pamt1gEntrySize' },
  { id: 0x9100_0000_0000_0013n, path: 'tdmr.pamtPageBitmapEntryBits', feature: DYNAMIC_PAMT },
  { id: 0x9800_0001_0000_0000n, path: 'tdCtrl.tdrBaseSize' },
  { id: 0x9800_0001_0000_0100n, path: 'tdCtrl.tdcsBaseSize' },
  { id: 0x9800_0001_0000_0200n, path: 'tdCtrl.tdvpsBaseSize' },
  { id: 0x1900_0003_0000_0000n, path: 'tdConf.attributesFixed0' },
  { id: 0x1900_0003_0000_0001n, path: 'tdConf.attributesFixed1' },
  { id: 0x1900_0003_0000_0002n, path: 'tdConf.xfamFixed0' },
  { id: 0x1900_0003_0000_0003n, path: 'tdConf.xfamFixed1' },
  { id: 0x9900_0001_0000_0004n, path: 'tdConf.numCpuidConfig' },
  { id: 0x9900_0001_0000_0008n, path: 'tdConf.maxVcpusPerTd' },
  { id: 0x8900_0001_0000_0000n, path: 'handoff.moduleHv', feature: TD_PRESERVING },
  { id: 0x3000_0003_0000_0000n, path: 'connect.features', feature: TDX_IO },
  { id: 0x9000_0001_0000_0000n, path: 'cmr.count' },
];

/** CPUID_CONFIG entries the kernel has room for (Linux host rules 1.7). */
const MAX_CPUID_CONFIG = 128;

/** @internal */
export const ARRAY_FIELDS: readonly ArrayField[] = [
  {
    id: 0x9900_0003_0000_0400n,
    path: 'tdConf.cpuidConfigLeaves',
    countPath: 'tdConf.numCpuidConfig',
    perEntry: 1,
    limit: MAX_CPUID_CONFIG,
  },
  {
    id: 0x9900_0003_0000_0500n,
    path: 'tdConf.cpuidConfigValues',
    countPath: 'tdConf.numCpuidConfig',
    perEntry: 2,
    limit: MAX_CPUID_CONFIG,
  },
  { id: 0x9000_0003_0000_0080n, path: 'cmr.bases', countPath: 'cmr.count', perEntry: 1, limit: MAX_CMRS },
  { id: 0x9000_0003_0000_0100n, path: 'cmr.sizes', countPath: 'cmr.count', perEntry: 1, limit: MAX_CMRS },
];

/** True for a field of 64 bits: element size code 3 in bits 33:32 of its id. @internal */
export function isWide(id: bigint): boolean {
  return ((id >> 32n) & 3n) === 3n;
}
