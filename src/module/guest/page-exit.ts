/** Exits by which a guest leaf asks the host for a page it cannot work with as it is (module facts 9, 11). */
import { isLeafEntry, publicSeptState, SEPT_RWX_XU, type SeptEntry } from '../td/sept-entry.ts';
import type { RunningVcpu } from './running-vcpu.ts';
import { exitForEptViolation } from './td-exit.ts';

/** Types of extended exit qualification that tell of a guest leaf. @public */
export const PAGE_EXIT = { ACCEPT: 1, GPA_DETAILS: 2, ATTR_WR: 5 } as const;

const WRITE_ACCESS = 1n << 1n;
/** Bits of the extended exit qualification's upper half. */
const INFO = { LEVEL: 3, STATE: 6, LEAF: 14, VM: 21 } as const;
const INFO_SHIFT = 32n;
/** Where R, W and X, and XU, of the entry are in the qualification. */
const PERMISSIONS_SHIFT = 3n;
const RWX = 0b111;
const XU = 1n << 6n;

/** What the leaf asked for. @public */
export interface PageRequest {
  readonly gpa: number;
  readonly level: number;
}

/** Where in the TD's own secure EPT the leaf got. @public */
export interface PageObstacle {
  readonly level: number;
  readonly entry: SeptEntry;
}

/** The entry of the TD's own tree does not allow what the leaf wants. @internal */
export function exitForPage(
  vcpu: RunningVcpu,
  type: (typeof PAGE_EXIT)['ACCEPT'] | (typeof PAGE_EXIT)['ATTR_WR'],
  { gpa, level }: PageRequest,
  { level: reached, entry }: PageObstacle,
): 'left' {
  const leaf = isLeafEntry(entry) ? 1 << INFO.LEAF : 0;
  const info = level | (reached << INFO.LEVEL) | (publicSeptState(entry) << INFO.STATE) | leaf;
  const granted = BigInt(entry.low & RWX) << PERMISSIONS_SHIFT;
  return exitForEptViolation(vcpu, WRITE_ACCESS | granted, BigInt(gpa), extended(type, info));
}

/** The tree of L2 VM `vm` has no entry for the page. @internal */
export function exitForL2Page(
  vcpu: RunningVcpu,
  vm: number,
  { gpa }: PageRequest,
  { level: reached, entry }: PageObstacle,
): 'left' {
  const permissions = entry.low & SEPT_RWX_XU;
  const granted = (BigInt(permissions & RWX) << PERMISSIONS_SHIFT) | (permissions > RWX ? XU : 0n);
  const info = (reached << INFO.LEVEL) | (vm << INFO.VM);
  return exitForEptViolation(
    vcpu,
    WRITE_ACCESS | granted,
    BigInt(gpa),
    extended(PAGE_EXIT.GPA_DETAILS, info),
  );
}

function extended(type: number, info: number): bigint {
  return BigInt(type) | (BigInt(info >>> 0) << INFO_SHIFT);
}
