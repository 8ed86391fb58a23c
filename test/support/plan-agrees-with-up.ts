/** Plans and bring-ups of random machines, compared. */
import fc from 'fast-check';
import { expect } from 'vitest';
import { pamtRange } from '../../src/kernel/pamt-alloc.ts';
import { createHost } from '../../src/lab/host.ts';
import type { Plan, PlanOptions } from '../../src/lab/plan/plan.ts';
import { planHost } from '../../src/lab/plan/plan-host.ts';
import type { MachineDescription } from '../../src/machine/description.ts';
import type { KernelHints, Survey } from '../../src/survey/survey.ts';

/** Command lines and what a log told of hibernation. */
const hints: fc.Arbitrary<KernelHints> = fc.record(
  {
    commandLine: fc.constantFrom('', '', '', 'maxcpus=1', 'maxcpus=3', 'nr_cpus=2', 'nosmp', 'nohibernate'),
    hibernationDisabled: fc.integer({ min: 0, max: 9 }).map((n) => n > 0),
  },
  { requiredKeys: ['commandLine'] },
);

/** What a bring-up came to, in a plan's words. */
async function bringUp(survey: Survey, options: PlanOptions): Promise<Partial<Plan>> {
  const { kernel } = createHost(survey.machine, {
    policy: { holes: options.holes, dynamicPamt: options.dynamicPamt },
    hints: survey.kernel,
  });
  await kernel.boot();
  kernel.allocator.audit();
  const failed = kernel.stages.find((stage) => stage.state === 'failed');
  return {
    verdict: {
      ok: kernel.state === 'initialized',
      step: failed?.name ?? null,
      errnoName: failed?.errno ?? null,
      code: failed?.reason?.code ?? null,
      reason: failed?.reason?.text ?? null,
    } as Plan['verdict'],
    pamt: { totalBytes: (kernel.enabled?.pamtKb ?? 0) * 1024, totalKb: kernel.enabled?.pamtKb ?? 0 },
    tdmrs: kernel.tdmrs.map(({ start, end, node, pamt, reservedAreas }) => ({
      start,
      end,
      node,
      reserved: reservedAreas,
      pamt: { ...pamtRange(pamt), node: pamt.node },
    })) as unknown as Plan['tdmrs'],
  };
}

const options: fc.Arbitrary<PlanOptions> = fc.record({
  holes: fc.constantFrom('memblock' as const, 'cmr' as const),
  dynamicPamt: fc.boolean(),
});

/** Every byte of memory and PAMT is on one node's account, once. */
function expectAccountsToBalance({ nodes, machine, tdmrs, pamt }: Plan): void {
  const sum = (sizes: readonly number[]): number => sizes.reduce((total, size) => total + size, 0);
  for (const node of nodes) {
    expect(node.tdxBytes + node.nonTdxBytes).toBe(node.memoryBytes);
    expect(sum(node.nonTdx.map((range) => range.bytes))).toBe(node.nonTdxBytes);
  }
  expect(sum(nodes.map((node) => node.memoryBytes))).toBe(machine.memoryBytes);
  if (tdmrs.every((tdmr) => tdmr.pamt !== null)) {
    expect(sum(nodes.map((node) => node.pamtBytes))).toBe(pamt.totalBytes);
  }
}

/**
 * Compares outcome, step, errno, reason, TDMRs and PAMTs over `numRuns` random machines. Returns how often each
 * outcome came up, by the reason's code.
 */
export async function comparePlansWithBringUps(
  machines: fc.Arbitrary<MachineDescription>,
  numRuns: number,
): Promise<ReadonlyMap<string, number>> {
  const outcomes = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(machines, options, hints, async (machine, choices, kernel) => {
      const survey: Survey = { machine, kernel, observed: {}, notes: [] };
      const plan = planHost(survey, choices);
      const up = await bringUp(survey, choices);
      expect(plan.verdict).toMatchObject(up.verdict!);
      expectAccountsToBalance(plan);
      const code = plan.verdict.code ?? 'ok';
      outcomes.set(code, (outcomes.get(code) ?? 0) + 1);
      if (!plan.verdict.ok) return;
      expect(plan.pamt).toEqual(up.pamt);
      expect(plan.tdmrs).toMatchObject(up.tdmrs as object[]);
    }),
    { numRuns },
  );
  return outcomes;
}
