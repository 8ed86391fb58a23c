/**
 * A TD's memory as a host sees it: which page is mapped where, in which state. Every call's status and effect are told
 * from this alone, without secure EPT entries or page metadata.
 */
import { PAGE_2M, PAGE_4K } from '../../src/abi/address.ts';
import { STATUS } from '../../src/abi/status-codes.ts';

/** States that RDX bits 15:8 of entry details name. */
export const PUBLIC_STATE = {
  FREE: 0,
  BLOCKED: 1,
  PENDING: 2,
  PENDING_BLOCKED: 3,
  MAPPED: 4,
  TABLE: 0x84,
  TABLE_BLOCKED: 0x81,
} as const;
type State = keyof typeof PUBLIC_STATE;

export interface ModelEntry {
  state: State;
  /** The page mapped, or that of the table. */
  page: number;
  /** Epoch in which it was blocked. */
  since: number;
  /** The 512 entries of a table. */
  children: ModelEntry[];
}

/** A place in the guest's memory: a 2 MiB range and, unless the range itself is meant, a page of it. */
export interface Place {
  readonly range: number;
  readonly index?: number | undefined;
}

const SUCCESS = STATUS.TDX_SUCCESS;
const RCX = 1n;
const R8 = 8n;
const STATE_INCORRECT = STATUS.TDX_EPT_ENTRY_STATE_INCORRECT | RCX;
const BLOCKS = { MAPPED: 'BLOCKED', PENDING: 'PENDING_BLOCKED', TABLE: 'TABLE_BLOCKED' } as const;
const UNBLOCKS = { BLOCKED: 'MAPPED', PENDING_BLOCKED: 'PENDING', TABLE_BLOCKED: 'TABLE' } as const;

const free = (): ModelEntry => ({ state: 'FREE', page: 0, since: 0, children: [] });
const isBlocked = ({ state }: ModelEntry): boolean => state in UNBLOCKS;
const isTable = ({ state }: ModelEntry): boolean => state.startsWith('TABLE');
const isLeaf = (entry: ModelEntry): boolean => entry.state !== 'FREE' && !isTable(entry);

export class PageTableModel {
  readonly ranges: ModelEntry[];
  readonly #runs: boolean;
  #epoch = 1;

  /** `runs`: the TD may run, so that pages have to be blocked and tracked. */
  constructor(ranges: number, runs: boolean) {
    this.ranges = Array.from({ length: ranges }, free);
    this.#runs = runs;
  }

  /** The entry at `place`, or undefined where no table leads there. */
  entry({ range, index }: Place): ModelEntry | undefined {
    const parent = this.ranges[range]!;
    if (index === undefined) return parent;
    return parent.state === 'TABLE' ? parent.children[index] : undefined;
  }

  /** 4 KiB pages that the TD has here: what CHLDCNT counts. */
  get pages(): number {
    let count = 0;
    for (const range of this.ranges) {
      if (isTable(range)) count += 1 + range.children.filter(isLeaf).length;
      else if (isLeaf(range)) count += 512;
    }
    return count;
  }

  /** What is at a physical page: nothing, a page of the TD, or a table of it. */
  use(page: number): 'free' | 'page' | 'large page' | 'table' {
    for (const range of this.ranges) {
      if (isTable(range)) {
        if (range.page === page) return 'table';
        if (range.children.some((child) => isLeaf(child) && child.page === page)) return 'page';
      } else if (isLeaf(range) && range.page <= page && page < range.page + PAGE_2M) return 'large page';
    }
    return 'free';
  }

  track(): bigint {
    this.#epoch++;
    return SUCCESS;
  }

  addTable(range: number, page: number): bigint {
    const entry = this.ranges[range]!;
    if (entry.state !== 'FREE') return STATE_INCORRECT;
    const taken = this.#checkFree(page);
    if (taken !== SUCCESS) return taken;
    const children = Array.from({ length: 512 }, free);
    Object.assign(entry, { state: 'TABLE', page, children });
    return SUCCESS;
  }

  /** AUG or, for a TD under construction, ADD. */
  give(place: Place, page: number, state: 'PENDING' | 'MAPPED'): bigint {
    return this.#at(place, (entry) => {
      if (entry.state !== 'FREE') return STATE_INCORRECT;
      const taken = place.index === undefined ? this.#checkRangeFree(page) : this.#checkFree(page);
      if (taken !== SUCCESS) return taken;
      Object.assign(entry, { state, page });
      return SUCCESS;
    });
  }

  block(place: Place): bigint {
    return this.#at(place, (entry) => {
      if (isBlocked(entry)) return STATUS.TDX_GPA_RANGE_ALREADY_BLOCKED | RCX;
      if (!(entry.state in BLOCKS)) return STATE_INCORRECT;
      Object.assign(entry, { state: BLOCKS[entry.state as keyof typeof BLOCKS], since: this.#epoch });
      return SUCCESS;
    });
  }

  unblock(place: Place): bigint {
    return this.#at(place, (entry) => {
      if (!isBlocked(entry)) return STATE_INCORRECT;
      if (this.#runs && entry.since >= this.#epoch) return STATUS.TDX_TLB_TRACKING_NOT_DONE | RCX;
      entry.state = UNBLOCKS[entry.state as keyof typeof UNBLOCKS];
      return SUCCESS;
    });
  }

  remove(place: Place): bigint {
    return this.#at(place, (entry) => {
      if (!isLeaf(entry)) return STATE_INCORRECT;
      const quiet = this.#checkQuiet(entry);
      if (quiet === SUCCESS) Object.assign(entry, free());
      return quiet;
    });
  }

  removeTable(range: number): bigint {
    const entry = this.ranges[range]!;
    if (!isTable(entry)) return STATE_INCORRECT;
    const quiet = this.#checkQuiet(entry);
    if (quiet !== SUCCESS) return quiet;
    if (entry.children.some(({ state }) => state !== 'FREE')) return STATUS.TDX_EPT_PAGE_NOT_FREE | RCX;
    Object.assign(entry, free());
    return SUCCESS;
  }

  relocate(place: Place, page: number): bigint {
    return this.#at(place, (entry) => {
      if (!isLeaf(entry)) return STATE_INCORRECT;
      if (entry.page === page) return STATUS.TDX_OPERAND_INVALID | R8;
      const quiet = this.#checkQuiet(entry);
      if (quiet !== SUCCESS) return quiet;
      const taken = this.#checkFree(page);
      if (taken !== SUCCESS) return taken;
      entry.page = page;
      if (isBlocked(entry)) entry.state = UNBLOCKS[entry.state as keyof typeof UNBLOCKS];
      return SUCCESS;
    });
  }

  demote(range: number, page: number): bigint {
    const entry = this.ranges[range]!;
    if (!isLeaf(entry)) return STATE_INCORRECT;
    const quiet = this.#checkQuiet(entry);
    if (quiet !== SUCCESS) return quiet;
    const taken = this.#checkFree(page);
    if (taken !== SUCCESS) return taken;
    const state = isBlocked(entry) ? UNBLOCKS[entry.state as keyof typeof UNBLOCKS] : entry.state;
    const start = entry.page;
    const children = Array.from({ length: 512 }, (_, i) => ({ ...free(), state, page: start + i * PAGE_4K }));
    Object.assign(entry, { state: 'TABLE', page, children });
    return SUCCESS;
  }

  promote(range: number): bigint {
    const entry = this.ranges[range]!;
    if (!isTable(entry)) return STATE_INCORRECT;
    const quiet = this.#checkQuiet(entry);
    if (quiet !== SUCCESS) return quiet;
    const [{ state, page }] = entry.children as [ModelEntry];
    const mergeable =
      (state === 'MAPPED' || state === 'PENDING') &&
      page % PAGE_2M === 0 &&
      entry.children.every((child, i) => child.state === state && child.page === page + i * PAGE_4K);
    if (!mergeable) return STATUS.TDX_EPT_INVALID_PROMOTE_CONDITIONS | RCX;
    Object.assign(entry, { state, page, children: [] });
    return SUCCESS;
  }

  #at(place: Place, change: (entry: ModelEntry) => bigint): bigint {
    const entry = this.entry(place);
    return entry === undefined ? STATUS.TDX_EPT_WALK_FAILED | RCX : change(entry);
  }

  #checkQuiet(entry: ModelEntry): bigint {
    if (!this.#runs) return SUCCESS;
    if (!isBlocked(entry)) return STATUS.TDX_GPA_RANGE_NOT_BLOCKED | RCX;
    return entry.since < this.#epoch ? SUCCESS : STATUS.TDX_TLB_TRACKING_NOT_DONE | RCX;
  }

  #checkFree(page: number): bigint {
    return this.use(page) === 'free' ? SUCCESS : STATUS.TDX_PAGE_METADATA_INCORRECT | R8;
  }

  #checkRangeFree(start: number): bigint {
    if (start % PAGE_2M !== 0) return STATUS.TDX_OPERAND_INVALID | R8;
    const isFree = this.ranges.every((range) => {
      const within = (page: number): boolean => start <= page && page < start + PAGE_2M;
      if (isTable(range) && within(range.page)) return false;
      return (
        !(isLeaf(range) && within(range.page)) && !range.children.some((c) => isLeaf(c) && within(c.page))
      );
    });
    return isFree ? SUCCESS : STATUS.TDX_PAGE_METADATA_INCORRECT | R8;
  }
}
