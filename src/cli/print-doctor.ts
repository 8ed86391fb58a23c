/** Prints the diagnosis of a machine. */
import type { DoctorReport, StageReport } from '../lab/doctor/diagnose.ts';
import type { StageStatus } from '../lab/doctor/finding.ts';
import { type Io, style } from './io.ts';
import { printWrapped } from './table.ts';

/** A status as it stands in front of its stage, with its colour. */
const STATUS: Readonly<Record<StageStatus, readonly [word: string, colour: Parameters<typeof style>[1]]>> = {
  pass: ['pass', 'green'],
  fail: ['FAIL', 'red'],
  unknown: ['unknown', 'yellow'],
  'not-applicable': ['-', 'dim'],
};

const STATUS_WIDTH = 9;
const TITLE_WIDTH = 16;
/** Widest label ("to know it") and a gap. */
const LABEL_WIDTH = 12;

/** Remedies that `plan` tried, shown here; it prints all of them itself. */
const MAX_REMEDIES = 3;

/** @internal */
export function printDoctor(io: Io, report: DoctorReport, root: string | undefined): void {
  const colour =
    report.verdict === 'not-ready' ? 'red' : report.verdict === 'cannot-tell' ? 'yellow' : 'green';
  printWrapped(io, style(io, colour, harmless(report.says)));
  io.out();
  for (const group of alike(report.stages)) printStages(io, group);
  printPlan(io, report, root);
}

/** Files of another machine are shown, but give no commands to the terminal. */
function harmless(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ');
}

/** Neighbours of which there is nothing but one and the same to say stand together. */
function alike(stages: readonly StageReport[]): readonly (readonly StageReport[])[] {
  const groups: StageReport[][] = [];
  for (const stage of stages) {
    const before = groups.at(-1)?.at(-1);
    const same =
      before?.status === 'not-applicable' &&
      stage.status === 'not-applicable' &&
      stage.says === before.says &&
      stage.looked.length === 0;
    if (same) groups.at(-1)!.push(stage);
    else groups.push([stage]);
  }
  return groups;
}

function printStages(io: Io, stages: readonly StageReport[]): void {
  const { status, says, looked, cause, remedy, toKnow, remarks = [] } = stages[0]!;
  const [word, colour] = STATUS[status];
  const mark = style(io, colour, word) + ' '.repeat(STATUS_WIDTH - word.length);
  const titles = stages.map(({ title }) => title);
  if (titles.length === 1) {
    printWrapped(
      io,
      says,
      mark + style(io, 'bold', titles[0]!) + ' '.repeat(TITLE_WIDTH - titles[0]!.length),
    );
  } else printWrapped(io, `${titles.join(', ')}: ${says}`, mark);
  const inner = ' '.repeat(STATUS_WIDTH);
  const line = (label: string, text: string | undefined, labelColour?: 'red' | 'green' | 'yellow'): void => {
    if (text === undefined) return;
    const shown = labelColour === undefined ? label : style(io, labelColour, label);
    printWrapped(io, text, `${inner}${shown}${' '.repeat(LABEL_WIDTH - label.length)}`);
  };
  line('cause', cause, 'red');
  line('what to do', remedy, 'green');
  line('to know it', toKnow, 'yellow');
  for (const remark of remarks) line('note', harmless(remark), 'yellow');
  for (const { where, value } of looked)
    printWrapped(io, style(io, 'dim', harmless(`${where}: ${value}`)), inner);
}

function printPlan(io: Io, { plan }: DoctorReport, root: string | undefined): void {
  if (plan === undefined) return;
  io.out();
  printWrapped(io, harmless(plan.says), `${style(io, 'bold', 'plan')}  `);
  for (const { change, effect } of plan.remedies.slice(0, MAX_REMEDIES))
    printWrapped(io, `${change}: ${effect}`, '      - ');
  printWrapped(io, `${wayInto(root)}; tdxlab plan ${plan.sources.join(' ')}`, '      all of it: ');
}

/** How to get to where the sources of the plan are. */
function wayInto(root: string | undefined): string {
  if (root === undefined) return 'tdxlab collect --out host; cd host';
  return /\.(?:tar|tgz|gz)$/.test(root) ? `tar xf ${root}` : `cd ${root}`;
}
