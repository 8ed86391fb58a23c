/** `TdxSysinfo`: what the kernel knows of the module, one structure filled once, frozen, and shared read-only. */
import { type AddressRange, formatRange, hex } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { hasFeature } from '../abi/features.ts';
import { TDH } from '../abi/leaves.ts';
import { R8, RDX, regNumber } from '../abi/registers.ts';
import { MAX_CMRS } from '../machine/description.ts';
import type { Cpu } from './cpu.ts';
import type { LogRing } from './log.ts';
import { seamcallPrerrRet, setOperands } from './seamcall.ts';
import { ARRAY_FIELDS, FEATURES0_FIELD, isWide, SCALAR_FIELDS } from './sysinfo-fields.ts';

/** Fields of up to 32 bits are `number`, 64-bit fields `bigint`; sizes in bytes. @public */
export interface TdxSysinfo {
  readonly version: {
    readonly major: number;
    readonly minor: number;
    readonly update: number;
    readonly internal: number;
    /** Decimal YYYYMMDD. */
    readonly buildDate: number;
    readonly buildNumber: number;
    readonly vendorId: number;
    readonly attributes: number;
  };
  readonly features: { readonly features0: bigint };
  readonly tdmr: {
    readonly maxTdmrs: number;
    readonly maxReservedPerTdmr: number;
    readonly pamt4kEntrySize: number;
    readonly pamt2mEntrySize: number;
    readonly pamt1gEntrySize: number;
    /** With DYNAMIC_PAMT. */
    readonly pamtPageBitmapEntryBits?: number;
  };
  readonly tdCtrl: {
    readonly tdrBaseSize: number;
    readonly tdcsBaseSize: number;
    readonly tdvpsBaseSize: number;
  };
  readonly tdConf: {
    readonly attributesFixed0: bigint;
    readonly attributesFixed1: bigint;
    readonly xfamFixed0: bigint;
    readonly xfamFixed1: bigint;
    readonly numCpuidConfig: number;
    readonly maxVcpusPerTd: number;
    /** Leaf in the low half, subleaf in the high half, all ones for none. */
    readonly cpuidConfigLeaves: readonly bigint[];
    /** Two values per leaf: EAX and EBX, ECX and EDX. */
    readonly cpuidConfigValues: readonly bigint[];
  };
  /** With TD_PRESERVING. */
  readonly handoff: { readonly moduleHv?: number };
  /** With TDX_IO. */
  readonly connect: { readonly features?: bigint };
  readonly cmr: {
    readonly count: number;
    readonly bases: readonly bigint[];
    readonly sizes: readonly bigint[];
  };
  /** CMRs that are not empty, ascending. */
  readonly cmrs: readonly AddressRange[];
}

type Draft = Record<string, Record<string, unknown>>;

/**
 * Reads every field of the table with TDH.SYS.RD; a field that a feature bit guards only where the bit is set.
 * Throws the wrapper's errno when a read fails (a TDX 1.0 module has no TDH.SYS.RD), EINVAL when the module
 * reports more entries than its tables can have, or an empty CMR while its count is trusted.
 * @public
 */
export function readSysinfo(cpu: Cpu, log: LogRing, trustCmrCount: boolean): TdxSysinfo {
  const draft: Draft = {};
  const features0 = readField(cpu, FEATURES0_FIELD, log) as bigint;
  const present = (feature: number | undefined): boolean =>
    feature === undefined || ((features0 >> BigInt(feature)) & 1n) === 1n;
  for (const { path } of [...SCALAR_FIELDS, ...ARRAY_FIELDS]) draft[path.split('.')[0]!] ??= {};
  for (const { id, path, feature } of SCALAR_FIELDS) {
    if (present(feature)) put(draft, path, readField(cpu, id, log));
  }
  for (const { id, path, countPath, perEntry, limit } of ARRAY_FIELDS) {
    const count = get(draft, countPath) as number;
    if (count > limit) {
      throw new KernelError(
        'EINVAL',
        'sysinfo-table-size',
        `the module reports ${count} for ${countPath}, at most ${limit} can be`,
        {
          field: hex(id),
          count,
          limit,
        },
      );
    }
    const values = Array.from({ length: count * perEntry }, (_, i) => readField(cpu, id + BigInt(i), log));
    put(draft, path, values);
  }
  const info = draft as unknown as Omit<TdxSysinfo, 'cmrs'>;
  return deepFreeze({ ...info, cmrs: listCmrs(info.cmr, trustCmrCount) });
}

/**
 * The CMRs among the entries the module reported. A count that is not trusted ends at the first empty entry;
 * a trusted one must have none. Throws EINVAL.
 * @public
 */
export function listCmrs(raw: TdxSysinfo['cmr'], trustCount: boolean): readonly AddressRange[] {
  const entries = raw.bases.map((base, i) => ({ start: Number(base), end: Number(base + raw.sizes[i]!) }));
  const empty = entries.findIndex(({ start, end }) => start === end);
  if (empty === -1) return entries;
  if (!trustCount) return entries.slice(0, empty);
  throw new KernelError(
    'EINVAL',
    'empty-cmr',
    `the module reports ${raw.count} CMRs, and CMR ${empty} is empty`,
    {
      count: raw.count,
      empty,
      limit: MAX_CMRS,
    },
  );
}

/** `1.5.05`: the update has two digits. @public */
export function formatModuleVersion({
  major,
  minor,
  update,
}: Pick<TdxSysinfo['version'], 'major' | 'minor' | 'update'>): string {
  return `${major}.${minor}.${String(update).padStart(2, '0')}`;
}

/** Logs what the module is and which memory is convertible. @public */
export function logSysinfo(info: TdxSysinfo, log: LogRing): void {
  const { version } = info;
  log.info(`Module version: ${formatModuleVersion(version)}`, 'module-version');
  log.info(
    `TDX module: attributes ${hex(version.attributes)}, vendor_id ${hex(version.vendorId)}, ` +
      `major_version ${version.major}, minor_version ${version.minor}, update_version ${version.update}, ` +
      `build_date ${version.buildDate}, build_num ${version.buildNumber}`,
    'module-build',
  );
  for (const cmr of info.cmrs) log.info(`CMR: ${formatRange(cmr)}`, 'cmr');
}

/** Throws EINVAL for a module that clobbers RBP: the kernel's frame pointers would not survive it. @public */
export function checkFeatures(info: TdxSysinfo, log: LogRing): void {
  if (hasFeature(info.features.features0, 'NO_RBP_MOD')) return;
  log.err('the module clobbers RBP; a newer TDX module is needed', 'no-rbp-mod');
  throw rbpClobberError(formatModuleVersion(info.version), info.features.features0);
}

/** Why a module without NO_RBP_MOD is refused. @public */
export function rbpClobberError(version: string, features0: bigint): KernelError {
  return new KernelError(
    'EINVAL',
    'no-rbp-mod',
    `module ${version} clobbers RBP (TDX_FEATURES0 bit 18 is clear); use a newer TDX module`,
    { features0: hex(features0) },
  );
}

function readField(cpu: Cpu, id: bigint, log: LogRing): number | bigint {
  setOperands(cpu);
  const { regs } = cpu.lp;
  regs.q[RDX] = id;
  seamcallPrerrRet(cpu, TDH.sysRd, log);
  return isWide(id) ? regs.q[R8]! : regNumber(regs, R8);
}

function put(draft: Draft, path: string, value: unknown): void {
  const [section, member] = path.split('.') as [string, string];
  draft[section]![member] = value;
}

function get(draft: Draft, path: string): unknown {
  const [section, member] = path.split('.') as [string, string];
  return draft[section]![member];
}

/** Freezes `value` and all it holds. @internal */
export function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value;
  for (const member of Object.values(value)) deepFreeze(member);
  return Object.freeze(value);
}
