/** Prints what exploring a scenario found. */
import type { Interleavings } from '../lab/explore/exhaustive/explore-interleavings.ts';
import type { Exploration } from '../lab/explore/seeds/explore-scenario.ts';
import { formatCount } from './format.ts';
import { type Io, style } from './io.ts';
import { printWrapped } from './table.ts';

/** `file`: a scenario that repeats what was found; `out`: where it was written. @internal */
export function printExploration(
  io: Io,
  { scenario, seeds, firstSeed, events, found }: Exploration,
  file: string | null,
  out: string | null,
): void {
  const range = `${formatCount(seeds)} seeds from ${firstSeed}, ${formatCount(events)} events`;
  if (found === null || file === null) {
    printWrapped(io, `${scenario}: ${range}: ${style(io, 'green', 'everything held')}`);
    return;
  }
  const { failure, seed, eventsBefore, tries } = found;
  printWrapped(io, `${scenario}: ${range}: ${style(io, 'red', `seed ${seed} fails`)}`);
  printWrapped(io, `${failure.kind} ${failure.name}: ${failure.text}`);
  const short = `${formatCount(found.events.length)} of ${formatCount(eventsBefore)} events are enough`;
  printWrapped(io, `${short} (${formatCount(tries)} lives were played to tell). This file repeats it:`);
  io.out();
  io.out(file.trimEnd());
  io.out();
  printWrapped(
    io,
    out === null ? 'Save it with --out FILE, then: tdxlab run FILE' : `Repeat it: tdxlab run ${out}`,
  );
}

/** @internal */
export function printSearch(
  io: Io,
  { policy, states, transitions, depth, ends, complete, broken }: Interleavings,
): void {
  const figures = `${formatCount(states)} states, ${formatCount(transitions)} transitions, ${formatCount(depth)} steps deep, ${formatCount(ends)} ends`;
  printWrapped(
    io,
    `Policy ${policy}. Every interleaving of its tasks${complete ? '' : ', as far as was looked'}: ${figures}.`,
  );
  if (broken === null) {
    printWrapped(
      io,
      complete
        ? style(io, 'green', 'Every invariant holds in all of them.')
        : 'No invariant is broken so far.',
    );
    return;
  }
  printWrapped(io, `${style(io, 'red', broken.invariant)}: ${broken.text}. The shortest way there:`);
  broken.path.forEach(({ task, step, outcome }, i) => {
    const end =
      outcome === null ? '' : ` -> ${outcome.result}${outcome.reason === null ? '' : ` (${outcome.reason})`}`;
    printWrapped(io, `${step}${end}`, `${String(i + 1).padStart(3)}  ${task.padEnd(12)} `);
  });
}
