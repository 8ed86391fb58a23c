/** A secure EPT as a tree of text. */
import { hex } from '../abi/address.ts';
import type { SeptRun } from '../lab/inspect/sept-tree.ts';
import type { TdInspection } from '../lab/inspect/tds.ts';
import { type Io, style } from './io.ts';

const INDENT = '  ';
/** Permissions of an entry that is not mapped. */
const NONE = '---';

/** Prints the tree of a TD that has one, a line for each run of equal entries. @internal */
export function printSept(io: Io, { tdr, sept = [] }: TdInspection): void {
  io.out();
  io.out(style(io, 'bold', `Secure EPT of TD ${hex(tdr)}`));
  if (sept.length === 0) io.out('empty');
  printRuns(io, sept, '');
}

function printRuns(io: Io, runs: readonly SeptRun[], indent: string): void {
  for (const run of runs) {
    io.out(`${indent}${hex(run.start)}-${hex(run.end)}: ${describe(run)}`);
    if (run.table !== undefined) printRuns(io, run.table.entries, indent + INDENT);
  }
}

function describe({ size, count, state, permissions, lock, table }: SeptRun): string {
  const words = [count === 1 ? size : `${count} x ${size}`, state];
  if (table === undefined && permissions !== NONE) words.push(permissions);
  if (lock !== null) words.push(lock);
  if (table !== undefined) words.push(`table ${hex(table.address)}`);
  return words.join(' ');
}
