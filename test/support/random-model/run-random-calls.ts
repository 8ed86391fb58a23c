/** Many runs of random calls, each on a module of its own. */
import fc from 'fast-check';
import type { AbstractState } from '../../../src/lab/invariants/abstract-state.ts';
import { randomCommands } from './commands.ts';
import { ModelRun, type ModelRunOptions } from './model-run.ts';

export interface RandomCalls {
  /** SEAMCALLs and guest steps of all runs. */
  readonly calls: number;
  /** How often each leaf succeeded (its name), failed (with the status), and each guest step came to its outcome. */
  readonly reached: ReadonlyMap<string, number>;
}

/** Plays commands on a new module. Throws an Error with the calls that led to it, and the breach as its cause. */
export function play(
  options: ModelRunOptions,
  commands: Iterable<fc.Command<AbstractState, ModelRun>>,
): ModelRun {
  const run = new ModelRun(options);
  try {
    fc.modelRun(() => ({ model: run.state, real: run }), commands);
    run.checker.checkState();
  } catch (error) {
    const calls = run.lines.map((line) => `  ${line}`).join('\n');
    throw new Error(`${String(error)}\nafter these calls:\n${calls}`, { cause: error });
  }
  return run;
}

/** Runs them. Throws fast-check's report of the first run that breaks something. */
export function runRandomCalls(
  options: ModelRunOptions & { readonly runs: number; readonly commands: number },
): RandomCalls {
  let calls = 0;
  const reached = new Map<string, number>();
  const property = fc.property(randomCommands(options.commands), (commands) => {
    const run = play(options, commands);
    calls += run.calls;
    for (const [what, count] of run.reached) reached.set(what, (reached.get(what) ?? 0) + count);
  });
  fc.assert(property, { numRuns: options.runs });
  return { calls, reached };
}
