/** The plan of a host as text. */

import { type AddressRange, formatRange } from '../abi/address.ts';
import { formatBytes } from '../abi/format-bytes.ts';
import type { Plan } from '../lab/plan/plan.ts';
import type { Note } from '../survey/survey.ts';
import { formatCount } from './format.ts';
import { type Io, style } from './io.ts';
import { NO_BREAK, printTable, printWrapped } from './table.ts';

/** Rows a list of ranges may have before it is cut. */
const MAX_ROWS = 32;

/** @internal */
export function printPlan(io: Io, plan: Plan): void {
  printMachine(io, plan);
  printVerdict(io, plan);
  printTdmrs(io, plan);
  printNodes(io, plan);
  printComparisons(io, plan);
  printNotes(io, plan.notes);
}

function heading(io: Io, text: string): void {
  io.out();
  io.out(style(io, 'bold', text));
}

function printMachine(io: Io, plan: Plan): void {
  const { machine, tdx } = plan;
  const { start, end, count } = tdx.privateKeyIds;
  io.out(style(io, 'bold', plan.host));
  const rows: [string, string][] = [
    [
      'machine',
      `${machine.packages} package${machine.packages === 1 ? '' : 's'}, ${formatCount(machine.logicalProcessors)} logical processors, ` +
        `${plan.nodes.length} node${plan.nodes.length === 1 ? '' : 's'}, ${formatBytes(machine.memoryBytes)} of memory, ` +
        `${machine.physicalAddressBits}-bit physical addresses`,
    ],
    ['TDX module', plan.module ?? 'none loaded'],
    [
      'KeyIDs',
      tdx.enabledByBios
        ? `private [${start}, ${end}): ${count}, of which 1 global, so ${plan.tds.max} TDs at once`
        : 'none private: the BIOS has not enabled TDX',
    ],
    [
      'CMRs',
      plan.cmrs.length === 0
        ? 'none'
        : plan.cmrs.map((cmr) => formatRange(cmr).replace(' ', NO_BREAK)).join(', '),
    ],
    [
      'choices',
      `holes from ${plan.options.holes === 'cmr' ? 'CMRs' : 'memory blocks'}, ${plan.options.dynamicPamt ? 'dynamic' : 'static'} PAMT`,
    ],
  ];
  for (const [name, text] of rows) printWrapped(io, text, `${name.padEnd(10)}  `);
}

function printVerdict(io: Io, plan: Plan): void {
  const { verdict } = plan;
  io.out();
  if (verdict.ok) {
    const cost = `${formatCount(plan.pamt.totalKb)} KB for PAMT`;
    printWrapped(io, `${style(io, 'green', 'TDX will initialise')}, ${cost}.`);
  } else {
    const errno = verdict.errnoName === null ? '' : ` with ${verdict.errnoName} (${verdict.errno})`;
    const status = verdict.status === null ? '' : `, status ${verdict.status.name}`;
    printWrapped(
      io,
      `${style(io, 'red', 'TDX will not initialise')}: ${verdict.step} fails${errno}${status}.`,
    );
    printWrapped(io, verdict.reason ?? '');
    printRangesAtFault(io, verdict.ranges);
  }
  for (const warning of plan.warnings) printWrapped(io, warning, `${style(io, 'yellow', 'warning')}: `);
  if (verdict.ok) return;
  heading(io, 'What makes it pass');
  if (plan.remedies.length === 0)
    io.out('No single change that was tried: holes, module release, memory left out.');
  for (const remedy of plan.remedies) printWrapped(io, `${remedy.change}: ${remedy.effect}`, '- ');
}

function printRangesAtFault(io: Io, ranges: readonly AddressRange[]): void {
  if (ranges.length === 0) return;
  heading(io, 'Ranges at fault');
  printTable(
    io,
    [{ heading: 'range' }, { heading: 'size', align: 'right' }],
    ranges.slice(0, MAX_ROWS).map((range) => [formatRange(range), formatBytes(range.end - range.start)]),
  );
  if (ranges.length > MAX_ROWS)
    io.out(`and ${formatCount(ranges.length - MAX_ROWS)} more; --json lists them`);
}

function printTdmrs(io: Io, { tdmrs, pamt: all }: Plan): void {
  if (tdmrs.length === 0) return;
  const right = 'right' as const;
  heading(io, 'TDMRs');
  printTable(
    io,
    [
      { heading: '#', align: right },
      { heading: 'range' },
      { heading: 'size', align: right },
      { heading: 'node', align: right },
      { heading: 'reserved areas', align: right },
    ],
    tdmrs.map((tdmr, i) => [
      String(i),
      formatRange(tdmr),
      formatBytes(tdmr.end - tdmr.start),
      String(tdmr.node),
      `${tdmr.reservedAreas} of ${tdmr.reservedAreaLimit}`,
    ]),
  );
  heading(io, `PAMTs, ${formatCount(all.totalKb)} KB in all`);
  printTable(
    io,
    [
      { heading: '#', align: right },
      { heading: 'for 4K', align: right },
      { heading: 'for 2M', align: right },
      { heading: 'for 1G', align: right },
      { heading: 'KB', align: right },
      { heading: 'node', align: right },
      { heading: 'at' },
    ],
    tdmrs.map(({ pamtBytes, pamt }, i) => [
      String(i),
      formatBytes(pamtBytes['4k']),
      formatBytes(pamtBytes['2m']),
      formatBytes(pamtBytes['1g']),
      formatCount(pamtBytes.total / 1024),
      pamt === null ? '-' : String(pamt.node),
      pamt === null ? 'no contiguous memory' : formatRange(pamt),
    ]),
  );
}

/** Each node's account and what no TD can use, with why. @internal */
export function printNodes(io: Io, plan: Plan): void {
  heading(io, 'Memory by node');
  const right = 'right' as const;
  printTable(
    io,
    [
      { heading: 'node', align: right },
      { heading: 'packages' },
      { heading: 'memory', align: right },
      { heading: 'TDX-capable', align: right },
      { heading: 'not capable', align: right },
      { heading: 'PAMT KB', align: right },
      { heading: 'hot-pluggable', align: right },
    ],
    plan.nodes.map((node) => [
      String(node.node),
      node.packages.join(' '),
      formatBytes(node.memoryBytes),
      formatBytes(node.tdxBytes),
      formatBytes(node.nonTdxBytes),
      formatCount(node.pamtKb),
      node.hotPluggableBytes === 0 ? '-' : formatBytes(node.hotPluggableBytes),
    ]),
  );
  const rows = plan.nodes.flatMap((node) =>
    node.nonTdx.map((range) => [String(node.node), formatRange(range), formatBytes(range.bytes), range.why]),
  );
  if (rows.length === 0) return;
  heading(io, 'Memory that no TD can use');
  printTable(
    io,
    [
      { heading: 'node', align: right },
      { heading: 'range' },
      { heading: 'size', align: right },
      { heading: 'why' },
    ],
    rows,
  );
}

function printComparisons(io: Io, { comparisons }: Plan): void {
  if (comparisons.length === 0) return;
  heading(io, "Against the host's own kernel");
  printTable(
    io,
    [{ heading: 'fact' }, { heading: 'plan' }, { heading: 'kernel' }, { heading: '' }],
    comparisons.map((c) => [c.what, c.planned, c.observed, c.agrees ? 'agree' : 'DIFFER']),
  );
}

/** What reading the host assumed, ignored or could not make out. @internal */
export function printNotes(io: Io, notes: readonly Note[]): void {
  if (notes.length === 0) return;
  heading(io, 'Notes');
  for (const note of notes) {
    printWrapped(io, `${note.source}${note.line === undefined ? '' : `:${note.line}`}: ${note.text}`, '- ');
  }
}
