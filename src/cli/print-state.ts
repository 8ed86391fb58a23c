/** A bring-up as text: its log lines, and how it ended. */

import { formatRange } from '../abi/address.ts';
import { formatBytes } from '../abi/format-bytes.ts';
import { formatLogEntry, type LogEntry } from '../kernel/log.ts';
import { pamtBytes, pamtRange } from '../kernel/pamt-alloc.ts';
import type { Host } from '../lab/host.ts';
import { formatCount } from './format.ts';
import { type Io, style } from './io.ts';
import { printTable, printWrapped } from './table.ts';

/** A log line, coloured by its level. @internal */
export function logLine(io: Io, entry: LogEntry): string {
  const line = formatLogEntry(entry);
  if (entry.level === 'err') return style(io, 'red', line);
  return entry.level === 'warn' ? style(io, 'yellow', line) : line;
}

/** How a bring-up ended: stages, what was made, what it cost. @internal */
export function printState(io: Io, { machine, kernel }: Pick<Host, 'machine' | 'kernel'>): void {
  const failed = kernel.stages.find((stage) => stage.state === 'failed');
  io.out();
  printTable(
    io,
    [{ heading: 'stage' }, { heading: 'state' }, { heading: 'what' }],
    kernel.stages.map(({ name, state, title, errno, reason }) => [
      name,
      state,
      reason === undefined ? title : `${errno}: ${reason.text}`,
    ]),
  );
  io.out();
  const calls = `${formatCount(machine.seam.calls)} SEAMCALLs, ${(machine.clock.nowNs / 1e9).toFixed(3)} s of virtual time`;
  if (failed !== undefined) {
    printWrapped(io, `${style(io, 'red', 'TDX is off')}: ${failed.name} failed. ${calls}.`);
    return;
  }
  if (kernel.state !== 'initialized') {
    printWrapped(
      io,
      `TDX is not initialised: the policy is opt-in, and use_tdx=on was not given (--policy opted-in=true). ${calls}.`,
    );
    return;
  }
  printWrapped(io, `${style(io, 'green', 'TDX is up')}: ${calls}.`);
  io.out();
  printTable(
    io,
    [
      { heading: 'TDMR' },
      { heading: 'reserved', align: 'right' },
      { heading: 'PAMT', align: 'right' },
      { heading: 'node', align: 'right' },
      { heading: 'PAMT at' },
    ],
    kernel.tdmrs.map((tdmr) => [
      formatRange(tdmr),
      String(tdmr.reservedAreas.length),
      formatBytes(pamtBytes(tdmr.pamt)),
      String(tdmr.pamt.node),
      formatRange(pamtRange(tdmr.pamt)),
    ]),
  );
}
