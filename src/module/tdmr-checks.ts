/**
 * The part of SYS.CONFIG that looks only at TDMRs, their PAMTs and the CMRs (module facts 3), in the module's
 * order of checks. A status carries the number of the TDMR, the PAMT level or reserved area, and the other TDMR
 * of a conflict in its info bytes.
 */
import { type AddressRange, overlaps, PAGE_1G, PAGE_2M, PAGE_4K } from '../abi/address.ts';
import { LEVEL_1G, LEVEL_2M, LEVEL_4K, type PageLevel } from '../abi/page-types.ts';
import { subtract } from '../abi/ranges.ts';
import { withInfo } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import { TDMR_INFO_RESERVED_AREAS, type TdmrInfo } from '../abi/tdmr-info.ts';
import { PAMT_ENTRY_SIZE } from './pamt-block.ts';

/** What the checks must know of the platform and of the configuration asked for. @public */
export interface TdmrCheckContext {
  /** Convertible memory, in the order of the firmware's list; empty entries do no harm. */
  readonly cmrs: readonly AddressRange[];
  /** Lowest address bit that carries a KeyID. */
  readonly keyIdStartBit: number;
  /** Width of a physical address in bits, KeyID bits included. */
  readonly maxPaBits: number;
  readonly dynamicPamt: boolean;
}

/** A TDMR that passed: everything a plain range. */
interface CheckedTdmr {
  readonly range: AddressRange;
  readonly reserved: readonly AddressRange[];
  /** Parts outside the reserved areas, ascending. */
  readonly available: readonly AddressRange[];
  /** PAMT areas by level. */
  readonly pamt: readonly [k4: AddressRange, m2: AddressRange, g1: AddressRange];
}

/** Addresses have 52 bits, whatever the platform implements. */
const ADDRESS_LIMIT = 1n << 52n;
const WRAP = 1n << 64n;
/** Overlaps are looked for from the 4 KiB area up; the areas themselves are validated from the 1 GiB area down. */
const UPWARDS: readonly PageLevel[] = [LEVEL_4K, LEVEL_2M, LEVEL_1G];
const DOWNWARDS: readonly PageLevel[] = [LEVEL_1G, LEVEL_2M, LEVEL_4K];
const PAGE_SIZES = [PAGE_4K, PAGE_2M, PAGE_1G] as const;

/** Checks TDMRs one after the other, each against those before it. @public */
export class TdmrChecker {
  /** TDMRs that passed, as SYS.CONFIG takes them over. */
  readonly accepted: CheckedTdmr[] = [];
  readonly #runs: readonly AddressRange[];
  readonly #keyIdMask: bigint;
  readonly #dynamicPamt: boolean;

  constructor(context: TdmrCheckContext) {
    this.#runs = cmrRuns(context.cmrs);
    this.#keyIdMask = (1n << BigInt(context.maxPaBits)) - (1n << BigInt(context.keyIdStartBit));
    this.#dynamicPamt = context.dynamicPamt;
  }

  /** TDX_SUCCESS, or the status SYS.CONFIG answers when this is the next TDMR of its list. */
  check(info: TdmrInfo<number | bigint>): bigint {
    const i = this.accepted.length;
    const range = this.#checkRange(info, i);
    if (typeof range === 'bigint') return range;
    const reserved = this.#checkReserved(info, range, i);
    if (typeof reserved === 'bigint') return reserved;
    const pamt = this.#checkPamtAreas(info, range, i);
    if (typeof pamt === 'bigint') return pamt;
    const tdmr: CheckedTdmr = { range, reserved, available: subtract([range], reserved), pamt };
    const status = this.#checkPamtConflicts(tdmr, i) ?? this.#checkConvertible(tdmr, i);
    if (status !== undefined) return status;
    this.accepted.push(tdmr);
    return STATUS.TDX_SUCCESS;
  }

  #checkRange(info: TdmrInfo<number | bigint>, i: number): AddressRange | bigint {
    const invalid = withInfo(STATUS.TDX_INVALID_TDMR, i);
    const base = BigInt(info.base);
    const size = BigInt(info.size);
    if (base + size >= WRAP) return invalid;
    const previous = this.accepted.at(-1);
    if (previous !== undefined && base < BigInt(previous.range.end)) {
      return withInfo(STATUS.TDX_NON_ORDERED_TDMR, i);
    }
    if (base % BigInt(PAGE_1G) !== 0n || size % BigInt(PAGE_1G) !== 0n || size === 0n) return invalid;
    if (!this.#isPlainAddress(base) || !this.#isPlainAddress(base + size - 1n)) return invalid;
    return { start: Number(base), end: Number(base + size) };
  }

  #checkReserved(
    info: TdmrInfo<number | bigint>,
    tdmr: AddressRange,
    i: number,
  ): readonly AddressRange[] | bigint {
    const areas: AddressRange[] = [];
    const sizeOf = (j: number): bigint => BigInt(info.reserved[j]?.size ?? 0);
    let previousEnd = 0n;
    for (let j = 0; j < TDMR_INFO_RESERVED_AREAS; j++) {
      const size = sizeOf(j);
      if (size === 0n) {
        if (sizeOf(j + 1) !== 0n) return withInfo(STATUS.TDX_NON_ORDERED_RESERVED_IN_TDMR, i, j);
        continue;
      }
      const offset = BigInt(info.reserved[j]!.offset);
      const invalid = withInfo(STATUS.TDX_INVALID_RESERVED_IN_TDMR, i, j);
      if (offset + size >= WRAP) return invalid;
      if (offset < previousEnd) {
        return withInfo(STATUS.TDX_NON_ORDERED_RESERVED_IN_TDMR, i, j);
      }
      if (offset % BigInt(PAGE_4K) !== 0n || size % BigInt(PAGE_4K) !== 0n) return invalid;
      if (offset + size > BigInt(tdmr.end - tdmr.start)) return invalid;
      areas.push({ start: tdmr.start + Number(offset), end: tdmr.start + Number(offset + size) });
      previousEnd = offset + size;
    }
    return areas;
  }

  #checkPamtAreas(
    info: TdmrInfo<number | bigint>,
    tdmr: AddressRange,
    i: number,
  ): CheckedTdmr['pamt'] | bigint {
    const areas = {
      [LEVEL_1G]: this.#pamtArea(info.pamt1gBase, info.pamt1gSize, LEVEL_1G, tdmr),
      [LEVEL_2M]: this.#pamtArea(info.pamt2mBase, info.pamt2mSize, LEVEL_2M, tdmr),
      [LEVEL_4K]: this.#pamtArea(info.pamt4kBase, info.pamt4kSize, LEVEL_4K, tdmr),
    };
    for (const level of DOWNWARDS) {
      if (areas[level] === undefined) return withInfo(STATUS.TDX_INVALID_PAMT, i, level);
    }
    return [areas[LEVEL_4K]!, areas[LEVEL_2M]!, areas[LEVEL_1G]!];
  }

  #pamtArea(
    base: number | bigint,
    size: number | bigint,
    level: PageLevel,
    tdmr: AddressRange,
  ): AddressRange | undefined {
    const start = BigInt(base);
    const end = start + BigInt(size);
    if (end > WRAP || start % BigInt(PAGE_4K) !== 0n || end % BigInt(PAGE_4K) !== 0n) return undefined;
    if (end === start || !this.#isPlainAddress(start) || !this.#isPlainAddress(end - 1n)) return undefined;
    const needed = pamtBytes(tdmr.end - tdmr.start, level, this.#dynamicPamt);
    if (end - start < BigInt(needed)) return undefined;
    return { start: Number(start), end: Number(end) };
  }

  /** PAMT areas against each other and against memory that TDs may use, of this TDMR and the earlier ones. */
  #checkPamtConflicts(tdmr: CheckedTdmr, i: number): bigint | undefined {
    for (const [j, other] of this.accepted.entries()) {
      const level = UPWARDS.find((at) => other.pamt.some((area) => overlaps(tdmr.pamt[at], area)));
      if (level !== undefined) return withInfo(STATUS.TDX_PAMT_OVERLAP, i, level, j);
    }
    const [k4, m2, g1] = tdmr.pamt;
    if (overlaps(k4, m2) || overlaps(k4, g1)) return withInfo(STATUS.TDX_PAMT_OVERLAP, i, LEVEL_4K, i);
    if (overlaps(m2, g1)) return withInfo(STATUS.TDX_PAMT_OVERLAP, i, LEVEL_2M, i);
    for (const [j, other] of this.accepted.entries()) {
      const mine = levelInside(tdmr.pamt, other.available);
      if (mine !== undefined) return withInfo(STATUS.TDX_PAMT_OVERLAP, i, mine, j);
      const theirs = levelInside(other.pamt, tdmr.available);
      if (theirs !== undefined) return withInfo(STATUS.TDX_PAMT_OVERLAP, j, theirs, i);
    }
    const own = levelInside(tdmr.pamt, tdmr.available);
    return own === undefined ? undefined : withInfo(STATUS.TDX_PAMT_OVERLAP, i, own, i);
  }

  #checkConvertible(tdmr: CheckedTdmr, i: number): bigint | undefined {
    for (const level of DOWNWARDS) {
      if (!this.#isConvertible(tdmr.pamt[level])) return withInfo(STATUS.TDX_PAMT_OUTSIDE_CMRS, i, level);
    }
    if (tdmr.available.every((part) => this.#isConvertible(part))) return undefined;
    return withInfo(STATUS.TDX_TDMR_OUTSIDE_CMRS, i);
  }

  #isConvertible(range: AddressRange): boolean {
    return this.#runs.some((run) => run.start <= range.start && range.end <= run.end);
  }

  /** Below 2^52 and without KeyID bits. */
  #isPlainAddress(address: bigint): boolean {
    return address < ADDRESS_LIMIT && (address & this.#keyIdMask) === 0n;
  }
}

/** Checks a whole list: TDX_SUCCESS or what SYS.CONFIG would answer. @public */
export function checkTdmrs(infos: readonly TdmrInfo<number | bigint>[], context: TdmrCheckContext): bigint {
  const checker = new TdmrChecker(context);
  for (const info of infos) {
    const status = checker.check(info);
    if (status !== STATUS.TDX_SUCCESS) return status;
  }
  return STATUS.TDX_SUCCESS;
}

/** Bytes of metadata at `level` for a TDMR of `sizeBytes`: 16 per page, or one bit per 4 KiB page if dynamic. @public */
export function pamtBytes(sizeBytes: number, level: PageLevel, dynamicPamt: boolean): number {
  const pages = sizeBytes / PAGE_SIZES[level];
  return dynamicPamt && level === LEVEL_4K ? pages / 8 : pages * PAMT_ENTRY_SIZE;
}

/** The lowest level whose PAMT area touches one of `parts`. */
function levelInside(pamt: CheckedTdmr['pamt'], parts: readonly AddressRange[]): PageLevel | undefined {
  return UPWARDS.find((level) => parts.some((part) => overlaps(pamt[level], part)));
}

/** CMRs with neighbours that touch joined: each entry is the run up to and including that CMR. */
function cmrRuns(cmrs: readonly AddressRange[]): readonly AddressRange[] {
  const runs: AddressRange[] = [];
  for (const cmr of cmrs) {
    if (cmr.end <= cmr.start) continue;
    const previous = runs.at(-1);
    runs.push(previous?.end === cmr.start ? { start: previous.start, end: cmr.end } : cmr);
  }
  return runs;
}
