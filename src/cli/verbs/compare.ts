/** `tdxlab compare SCENARIO`: plays the same events under every policy and prints one table. */
import { writeFileSync } from 'node:fs';
import { InputError } from '../../abi/input-error.ts';
import { comparisonSvg } from '../../lab/scenario/chart/comparison-svg.ts';
import { compareScenario, type PolicyComparison } from '../../lab/scenario/compare.ts';
import { findScenario } from '../../lab/scenario/find-scenario.ts';
import { toJson } from '../format.ts';
import { printComparison } from '../print-scenario.ts';
import { Progress } from '../progress.ts';
import { parsePolicy, seedOption } from '../scenario-options.ts';
import { EXIT, type Run } from '../verb.ts';

export const run: Run = async ([name = ''], options, io) => {
  const scenario = await findScenario(name);
  const added = ((options.policy ?? []) as readonly string[]).map(parsePolicy);
  const known = new Set(scenario.policies.map((policy) => policy.name));
  const policies = [...scenario.policies, ...added.filter((policy) => !known.has(policy.name))];
  const progress = new Progress();
  const comparison = await compareScenario(scenario, {
    seed: seedOption(options) ?? scenario.seed,
    policies,
    onPolicy: (policy, number, total) => progress.show(number, total, policy.name),
  });
  progress.end();
  if (options.svg !== undefined) writeSvg(String(options.svg), comparison);
  if (options.json === true) io.out(toJson(comparison));
  else printComparison(io, comparison);
  const holds = comparison.rows.every(
    ({ verdicts, violations }) => violations.length === 0 && verdicts.every((verdict) => verdict.holds),
  );
  return holds ? EXIT.done : EXIT.no;
};

function writeSvg(file: string, comparison: PolicyComparison): void {
  try {
    writeFileSync(file, comparisonSvg(comparison));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new InputError(`--svg: ${file} cannot be written (${code})`);
  }
}
