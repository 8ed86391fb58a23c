/** The example VMs as text: their lives line by line, and a table that compares them. */
import type { Look } from '../lab/vm/look.ts';
import type { VmEvent, VmExample } from '../lab/vm/vm-example.ts';
import { type Io, style } from './io.ts';
import { printTable, printWrapped } from './table.ts';

const COLOURS = { host: 'dim', guest: 'cyan', call: 'yellow' } as const;

/** One event, wrapped behind who it is of. @internal */
export function printEvent(io: Io, { who, text }: VmEvent): void {
  const lead = `${who.padEnd(LEAD - 2)}  `;
  const fits = io.columns >= LEAD + DIGITS;
  printWrapped(io, fits ? text : text.replace(MEASUREMENT, '$1 $2'), style(io, COLOURS[who], lead));
}

/** Columns before an event's text, and digits of a measurement: in two parts where one line is too short. */
const LEAD = 7;
const DIGITS = 96;
const MEASUREMENT = /([0-9a-f]{48})([0-9a-f]{48})/;

const NOT_THERE = '-';

/** What the host got to see of the secret, technology by technology. @internal */
export function printComparison(io: Io, examples: readonly VmExample[]): void {
  printTable(
    io,
    [
      { heading: 'VM' },
      { heading: 'measured' },
      { heading: 'user space' },
      { heading: 'kernel reads' },
      { heading: 'kernel writes' },
    ],
    examples.map(({ backend, measurement, looks }) => [
      backend,
      measurement === null ? NOT_THERE : measurement.name,
      brief(looks.secret, 'memory'),
      brief(looks.secret, 'physical'),
      brief(looks.secret, 'store'),
    ]),
  );
}

/** The result up to what explains it: `SIGBUS`, `#PF`, `zeroes`. */
function brief(looks: readonly Look[], how: Look['how']): string {
  const result = looks.find((look) => look.how === how)?.result ?? NOT_THERE;
  if (result.startsWith('"')) return 'the secret';
  return /^[\w#]+/.exec(result)?.[0] ?? result;
}
