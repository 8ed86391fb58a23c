/** A secure EPT read from its pages. */
import { PAGE_4K } from '../../abi/address.ts';
import type { PhysicalMemory } from '../../machine/memory.ts';
import { L2_STATE, l2State } from '../../module/td/l2-sept.ts';
import { SEPT_LEVEL_SIZES, type SecureEpt } from '../../module/td/sept.ts';
import {
  FREE_ENTRY,
  isLeafEntry,
  isPending,
  SEPT_LOW,
  SEPT_STATE,
  septState,
} from '../../module/td/sept-entry.ts';

const ENTRIES = 512;

/** An entry that is not free. @public */
export interface SeptEntryView {
  /** Guest address plus level. */
  readonly key: number;
  readonly level: number;
  readonly leaf: boolean;
  /** SEPT_STATE, or L2_STATE in the tree of an L2 VM. */
  readonly state: number;
  /** The guest has not accepted the page. */
  readonly pending: boolean;
  /** Address of the page it maps or the table it leads to. */
  readonly page: number;
}

/** @public */
export interface SeptView {
  readonly vm: number;
  /** Address of the root table. */
  readonly root: number;
  readonly entries: readonly SeptEntryView[];
  /** Keys of entries whose lock is held. */
  readonly locked: readonly number[];
}

/** Reads the tree of `vm` whose root is page number `rootPfn`. Throws MachineCheck where a table is not the TD's. @public */
export function readSept(memory: PhysicalMemory, ept: SecureEpt, rootPfn: number, vm: number): SeptView {
  const entries: SeptEntryView[] = [];
  const locked: number[] = [];
  const free = vm === 0 ? FREE_ENTRY : { low: 0, high: 0 };
  const readTable = (pfn: number, level: number, start: number): void => {
    const words = memory.frames.words32;
    const table = ept.tableAt(pfn);
    for (let i = 0; i < ENTRIES; i++) {
      const low = words[table + 2 * i]!;
      const high = words[table + 2 * i + 1]!;
      if (low === free.low && high === free.high) continue;
      const entry = { low, high };
      const gpa = start + i * SEPT_LEVEL_SIZES[level]!;
      if (vm === 0 && (low & SEPT_LOW.TDEL) !== 0) locked.push(gpa + level);
      const state = vm === 0 ? septState(entry) : l2State(entry);
      if (state === (vm === 0 ? SEPT_STATE.FREE : L2_STATE.FREE)) continue;
      const leaf = isLeafEntry(entry);
      const page = leaf ? ept.pageAddress(entry, level) : ept.pfnOf(entry) * PAGE_4K;
      entries.push({ key: gpa + level, level, leaf, state, pending: vm === 0 && isPending(entry), page });
      if (!leaf) readTable(page / PAGE_4K, level - 1, gpa);
    }
  };
  readTable(rootPfn, ept.rootLevel, 0);
  return { vm, root: rootPfn * PAGE_4K, entries, locked };
}
