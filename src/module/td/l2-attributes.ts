/** What a TD lets an L2 VM do with a page: 16-bit attributes and the L2 secure EPT entries made of them (module facts 9). */
import { L2_ATTRIBUTE, l2Blocked, PWA_HIGH, SSS_HIGH, VGP_HIGH } from './l2-blocking.ts';
import { SEPT_HIGH, SEPT_LOW, type SeptEntry } from './sept-entry.ts';

const { R, W, XS, XU, VGP, PWA, SSS, SVE, VALID } = L2_ATTRIBUTE;
const ANY_ACCESS = R | W | XS | XU;
/** Bits 14:8 and SVE, which the module does not offer. */
const NEVER = 0x7f00 | SVE;
const LEAF_LOW = SEPT_LOW.MT_WB | SEPT_LOW.TDMEM | SEPT_LOW.LEAF;

/** True when the attributes give some access: without, the L2 VM does not have the page. @public */
export function givesAccess(attributes: number): boolean {
  return (attributes & ANY_ACCESS) !== 0;
}

/** True for a combination that an entry can hold: writing and paging writes need reading. @public */
export function areAttributesLegal(attributes: number): boolean {
  if ((attributes & VALID) === 0 || (attributes & NEVER) !== 0) return false;
  return (attributes & R) !== 0 || (attributes & (W | PWA)) === 0;
}

/** The L2 entry of the page that `own`, the TD's entry, maps; blocked while that is pending. @public */
export function l2PageEntry(own: SeptEntry, attributes: number, isPending: boolean): SeptEntry {
  const bit = (attribute: number, mask: number): number => ((attributes & attribute) !== 0 ? mask : 0);
  const low =
    (own.low & 0xffff_f000) |
    LEAF_LOW |
    bit(R, SEPT_LOW.R) |
    bit(W, SEPT_LOW.W) |
    bit(XS, SEPT_LOW.X) |
    bit(XU, SEPT_LOW.XU);
  const high =
    (own.high & 0xf_ffff) |
    bit(VGP, VGP_HIGH) |
    bit(PWA, PWA_HIGH) |
    bit(SSS, SSS_HIGH) |
    bit(SVE, SEPT_HIGH.SVE);
  const entry = { low: low >>> 0, high: high >>> 0 };
  return isPending ? l2Blocked(entry, false) : entry;
}
