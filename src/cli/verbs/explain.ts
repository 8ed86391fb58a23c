/** `tdxlab explain WORD...`: prints what `lab/explain` makes of the words. */
import { explain } from '../../lab/explain/explain.ts';
import type { Case, Explanation } from '../../lab/explain/explanation.ts';
import { toJson } from '../format.ts';
import { type Io, style } from '../io.ts';
import { printWrapped } from '../table.ts';
import { EXIT, type Run } from '../verb.ts';

/** @internal */
export const run: Run = async (words, options, io) => {
  const explained = explain(words);
  if (options.json === true) {
    io.out(
      toJson(explained.flatMap(({ input, readings }) => readings.map((reading) => ({ input, ...reading })))),
    );
    return EXIT.done;
  }
  for (const [i, { input, readings }] of explained.entries()) {
    if (i > 0) io.out();
    if (readings.length > 1)
      io.out(style(io, 'dim', `${input} has ${readings.length} readings, the likeliest first.`));
    for (const [n, reading] of readings.entries()) {
      if (n > 0 || readings.length > 1) io.out();
      printExplanation(io, reading, '');
    }
  }
  return EXIT.done;
};

function printExplanation(io: Io, explanation: Explanation, indent: string): void {
  const { name, number } = explanation;
  io.out(
    `${indent}${style(io, 'bold', name)}${number === undefined ? '' : `  ${style(io, 'cyan', number)}`}`,
  );
  const inner = `${indent}  `;
  printWrapped(io, explanation.summary, inner);
  for (const { label, text } of explanation.facts)
    printWrapped(io, text, `${inner}${label.padEnd(LABEL_WIDTH)}`);
  for (const entry of explanation.cases) printCase(io, entry, inner);
  for (const part of explanation.parts) {
    io.out();
    printExplanation(io, part, inner);
  }
}

/** Widest label ("private KeyIDs") and a gap. */
const LABEL_WIDTH = 16;

function printCase(io: Io, entry: Case, indent: string): void {
  if (entry.where !== undefined) {
    io.out();
    printWrapped(io, entry.where, indent);
  }
  printWrapped(io, entry.cause, `${indent}${'cause'.padEnd(LABEL_WIDTH)}`);
  printWrapped(io, entry.remedy, `${indent}${'what to do'.padEnd(LABEL_WIDTH)}`);
}
