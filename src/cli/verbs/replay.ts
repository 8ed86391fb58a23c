/** `tdxlab replay FILE...`: recorded sequences against the module model. */
import { type FileReplay, replayFiles } from '../../lab/replay/replay.ts';
import { formatCount, toJson } from '../format.ts';
import { type Io, style } from '../io.ts';
import { printTable } from '../table.ts';
import { EXIT, type Run } from '../verb.ts';

export const run: Run = async (files, options, io) => {
  const sequences = await replayFiles(files);
  const calls = sequences.reduce((sum, sequence) => sum + sequence.calls, 0);
  const mismatches = sequences.reduce((sum, sequence) => sum + sequence.mismatches.length, 0);
  if (options.json === true) io.out(toJson({ calls, mismatches, sequences }));
  else print(io, sequences, calls, mismatches);
  return mismatches === 0 ? EXIT.done : EXIT.no;
};

function print(io: Io, sequences: readonly FileReplay[], calls: number, mismatches: number): void {
  const right = 'right' as const;
  printTable(
    io,
    [
      { heading: 'sequence' },
      { heading: 'calls', align: right },
      { heading: 'guest events', align: right },
      { heading: 'memory', align: right },
      { heading: 'differ', align: right },
      { heading: 'first difference' },
    ],
    sequences.map((sequence) => [
      sequence.name,
      formatCount(sequence.calls),
      formatCount(sequence.guestEvents),
      formatCount(sequence.expects),
      formatCount(sequence.mismatches.length),
      firstDifference(sequence),
    ]),
  );
  io.out();
  const events = sequences.reduce((sum, sequence) => sum + sequence.guestEvents, 0);
  const verdict =
    mismatches === 0
      ? style(io, 'green', 'every register agrees')
      : style(io, 'red', `${formatCount(mismatches)} differences`);
  io.out(
    `${formatCount(calls)} calls and ${formatCount(events)} guest events in ${formatCount(sequences.length)} sequences compared: ${verdict}`,
  );
}

function firstDifference({ mismatches }: FileReplay): string {
  const first = mismatches[0];
  return first === undefined
    ? ''
    : `line ${first.line}: ${first.field}: expected ${first.expected}, got ${first.actual}`;
}
