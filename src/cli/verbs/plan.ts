/** `tdxlab plan HOST`: what TDX would come to on a host, without running it. */
import { planHost } from '../../lab/plan/plan-host.ts';
import { toJson } from '../format.ts';
import { hostOptions, readHost } from '../host-operands.ts';
import { printPlan } from '../print-plan.ts';
import { EXIT, type Run } from '../verb.ts';

export const run: Run = async (sources, options, io) => {
  const choices = hostOptions(options);
  const plan = planHost(await readHost(sources), choices);
  if (options.json === true) io.out(toJson(plan));
  else printPlan(io, plan);
  return plan.verdict.ok ? EXIT.done : EXIT.no;
};
