/** A TD's secure EPT as a tree, with runs of equal leaves made one. */
import { PAGE_4K } from '../../abi/address.ts';
import type { PhysicalMemory } from '../../machine/memory.ts';
import { SEPT_LEVEL_SIZES } from '../../module/td/sept.ts';
import {
  entryPfn,
  isLeafEntry,
  SEPT_HIGH,
  SEPT_LOW,
  SEPT_STATE,
  type SeptEntry,
  type SeptStateName,
  septState,
} from '../../module/td/sept-entry.ts';
import { StructureView } from './structure.ts';

/** What an entry of each level covers. @public */
export type SeptSize = '4K' | '2M' | '1G' | '512G' | '256T';
const SIZES: readonly SeptSize[] = ['4K', '2M', '1G', '512G', '256T'];
const ENTRIES = 512;

/** Entries that are alike and cover `[start, end)` of guest memory; a table is always one entry. @public */
export interface SeptRun {
  readonly start: number;
  readonly end: number;
  readonly size: SeptSize;
  readonly count: number;
  /** A state of the ABI; the raw bits where they encode none. */
  readonly state: string;
  /** `RWX`, with `-` for what is not granted. */
  readonly permissions: string;
  /** The entry is locked, or a host claims its lock. */
  readonly lock: 'locked' | 'claimed' | null;
  /** Of an entry that leads to a table: its address and what is in it. */
  readonly table?: { readonly address: number; readonly entries: readonly SeptRun[] };
}

/** Where a tree begins. @internal */
export interface SeptRoot {
  readonly memory: PhysicalMemory;
  readonly keyId: number;
  readonly keyIdStartBit: number;
  /** Address of the root table. */
  readonly address: number;
  /** Level of the entries in it. */
  readonly level: number;
}

const STATE_NAMES = new Map(
  (Object.keys(SEPT_STATE) as SeptStateName[]).map((name) => [SEPT_STATE[name] as number, name]),
);

/** Every entry that is not free. Throws MachineCheck where a table is not the TD's. @internal */
export function septTree(root: SeptRoot): readonly SeptRun[] {
  return readTable(root, root.address, root.level, 0);
}

function readTable(root: SeptRoot, address: number, level: number, start: number): readonly SeptRun[] {
  const table = new StructureView(root.memory, root.keyId, [address]);
  const size = SEPT_LEVEL_SIZES[level]!;
  const runs: SeptRun[] = [];
  for (let i = 0; i < ENTRIES; i++) {
    const entry: SeptEntry = { low: table.u32(8 * i), high: table.u32(8 * i + 4) };
    if (septState(entry) === SEPT_STATE.FREE && lockOf(entry) === null) continue;
    const gpa = start + i * size;
    const run = { start: gpa, end: gpa + size, size: SIZES[level]!, count: 1, ...describe(entry) };
    if (isLeadingOn(entry, level)) {
      const next = (entryPfn(entry) * PAGE_4K) % 2 ** root.keyIdStartBit;
      runs.push({ ...run, table: { address: next, entries: readTable(root, next, level - 1, gpa) } });
    } else append(runs, run);
  }
  return runs;
}

function isLeadingOn(entry: SeptEntry, level: number): boolean {
  const state = septState(entry);
  const leads = state === SEPT_STATE.NL_MAPPED || state === SEPT_STATE.NL_BLOCKED;
  return leads && !isLeafEntry(entry) && level > 0;
}

function describe(entry: SeptEntry): Pick<SeptRun, 'state' | 'permissions' | 'lock'> {
  const code = septState(entry);
  const letter = (bit: number, name: string): string => ((entry.low & bit) === 0 ? '-' : name);
  return {
    state: STATE_NAMES.get(code) ?? `0x${code.toString(16)}`,
    permissions: letter(SEPT_LOW.R, 'R') + letter(SEPT_LOW.W, 'W') + letter(SEPT_LOW.X, 'X'),
    lock: lockOf(entry),
  };
}

function lockOf({ low, high }: SeptEntry): SeptRun['lock'] {
  if ((low & SEPT_LOW.TDEL) !== 0) return 'locked';
  return (high & SEPT_HIGH.TDHP) !== 0 ? 'claimed' : null;
}

function append(runs: SeptRun[], run: SeptRun): void {
  const last = runs.at(-1);
  const continues =
    last !== undefined &&
    last.table === undefined &&
    last.end === run.start &&
    last.state === run.state &&
    last.permissions === run.permissions &&
    last.lock === run.lock;
  if (continues) runs[runs.length - 1] = { ...last, end: run.end, count: last.count + 1 };
  else runs.push(run);
}
