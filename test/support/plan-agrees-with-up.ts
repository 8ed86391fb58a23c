/** Plans and bring-ups of random machines, compared. */
import fc from 'fast-check';
import { expect } from 'vitest';
import { pamtRange } from '../../src/kernel/pamt-alloc.ts';
import { createHost } from '../../src/lab/host.ts';
import type { Plan, PlanOptions } from '../../src/lab/plan/plan.ts';
import { planHost } from '../../src/lab/plan/plan-host.ts';
import type { MachineDescription } from '../../src/machine/description.ts';
import type { Survey } from '../../src/survey/survey.ts';
import { validateMachine } from '../../src/survey/validate-machine.ts';
import { arbitraryMachine } from './arbitrary-machine.ts';

function surveyOf(machine: MachineDescription, commandLine: string): Survey {
  return { machine, kernel: { commandLine }, observed: {}, notes: [] };
}

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

/**
 * Compares outcome, step, errno, reason, TDMRs and PAMTs over `numRuns` random machines. Returns how often each
 * outcome came up, by the reason's code.
 */
export async function comparePlansWithBringUps(numRuns: number): Promise<ReadonlyMap<string, number>> {
  const outcomes = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(
      arbitraryMachine,
      options,
      fc.constantFrom('', '', '', 'maxcpus=1'),
      async (machine, choices, commandLine) => {
        validateMachine(machine, 'random machine');
        const survey = surveyOf(machine, commandLine);
        const plan = planHost(survey, choices);
        const up = await bringUp(survey, choices);
        expect(plan.verdict).toMatchObject(up.verdict!);
        const code = plan.verdict.code ?? 'ok';
        outcomes.set(code, (outcomes.get(code) ?? 0) + 1);
        if (!plan.verdict.ok) return;
        expect(plan.pamt).toEqual(up.pamt);
        expect(plan.tdmrs).toMatchObject(up.tdmrs as object[]);
      },
    ),
    { numRuns },
  );
  return outcomes;
}
