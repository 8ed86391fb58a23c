/** `tdxlab run SCENARIO`: plays a scenario and prints its life. */
import { InputError } from '../../abi/input-error.ts';
import { runScenario } from '../../lab/scenario/engine/run-scenario.ts';
import { judge } from '../../lab/scenario/expectations.ts';
import { findScenario } from '../../lab/scenario/find-scenario.ts';
import { timeline } from '../../lab/scenario/timeline.ts';
import { toJson } from '../format.ts';
import { style } from '../io.ts';
import { printEnd, printOutcome } from '../print-scenario.ts';
import { Progress } from '../progress.ts';
import { parsePolicy, seedOption } from '../scenario-options.ts';
import { printWrapped } from '../table.ts';
import { EXIT, type Run } from '../verb.ts';

/** Of a longer life only what was not simply done is printed. */
const MOST_LINES = 200;

export const run: Run = async ([name = ''], options, io) => {
  const scenario = await findScenario(name);
  const policies = (options.policy ?? []) as readonly string[];
  if (policies.length > 1) throw new InputError('run takes one --policy; compare takes several');
  const policy = policies[0] === undefined ? scenario.policy : parsePolicy(policies[0]);
  const seed = seedOption(options) ?? scenario.seed;
  const events = timeline(scenario, seed);
  const json = options.json === true;
  const isAll = options.all === true || events.length <= MOST_LINES;
  if (!json) {
    printWrapped(io, style(io, 'bold', scenario.title));
    if (scenario.argument !== '') printWrapped(io, scenario.argument.replaceAll(/\s+/g, ' '));
    io.out();
    printWrapped(io, `Policy ${policy.name}: ${policy.title}. ${events.length} events, seed ${seed}.`);
    io.out();
  }
  const progress = new Progress();
  const result = await runScenario(scenario, {
    policy,
    seed,
    events,
    onEvent: (outcomes, number, total) => {
      const told = json ? [] : outcomes.filter(({ result }) => isAll || result !== 'done');
      if (told.length > 0) progress.end();
      for (const outcome of told) printOutcome(io, outcome);
      progress.show(number + 1, total, 'events');
    },
  });
  progress.end();
  const verdicts = judge(scenario, result);
  if (json) io.out(toJson({ ...result, verdicts }));
  else printEnd(io, result, verdicts);
  return verdicts.every(({ holds }) => holds) && result.violations.length === 0 ? EXIT.done : EXIT.no;
};
