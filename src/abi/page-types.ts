/** Page types and sizes of the physical address metadata table (facts: PAMT table), as PHYMEM.PAGE.RDMD reports them. */

import { PAGE_1G, PAGE_2M, PAGE_4K } from './address.ts';

/** Types of physical pages. @public */
export const PAGE_TYPE = {
  /** Not assigned: the host owns the page. */
  NDA: 0,
  /** In a reserved area of its TDMR. */
  RSVD: 1,
  /** A TD's private page. */
  REG: 3,
  TDR: 4,
  TDCX: 5,
  TDVPR: 6,
  /** A secure EPT page. */
  EPT: 8,
  /** With dynamic PAMT: lent to hold page metadata, or a 2 MiB range with such a pair of pages. */
  PAMT: 15,
} as const;

/** A page type's number. @public */
export type PageType = (typeof PAGE_TYPE)[keyof typeof PAGE_TYPE];

/** Page sizes by the level number of the ABI. @public */
export const LEVEL_4K = 0;
export const LEVEL_2M = 1;
export const LEVEL_1G = 2;

/** 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB. @public */
export type PageLevel = 0 | 1 | 2;

/** Bytes of a page, by level. @public */
export const PAGE_SIZES = [PAGE_4K, PAGE_2M, PAGE_1G] as const;
