import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { overlaps, PAGE_4K } from '../../src/abi/address.ts';
import { HostKernel } from '../../src/kernel/host-kernel.ts';
import { pamtRange } from '../../src/kernel/pamt-alloc.ts';
import { Machine } from '../../src/machine/machine.ts';
import { findRelease } from '../../src/module/releases.ts';
import { TdxModule } from '../../src/module/tdx-module.ts';
import { arbitraryMachine } from '../support/arbitrary-machine.ts';
import { expectCleanFailure } from './bring-up.ts';

describe('any machine', () => {
  it('comes up with every TDX page in exactly one TDMR, or fails leaving a clean state', async () => {
    let initialized = 0;
    let failed = 0;
    await fc.assert(
      fc.asyncProperty(
        arbitraryMachine,
        fc.constantFrom('memblock' as const, 'cmr' as const),
        fc.constantFrom('leave' as const, 'shutdown' as const),
        async (description, holes, onError) => {
          const machine = new Machine(description);
          const release = description.module === null ? undefined : findRelease(description.module);
          const module = new TdxModule(machine, release ?? findRelease('1.5.25')!);
          if (release !== undefined) machine.seam.module = module;
          const kernel = new HostKernel(machine, { policy: { holes, onError } });
          await kernel.boot();
          kernel.allocator.audit();
          const stage = kernel.stages.find(({ state }) => state === 'failed');
          if (stage?.name === 'detect') return;
          if (stage !== undefined) {
            failed++;
            await expectCleanFailure({ machine, module, kernel }, stage.name);
            return;
          }
          initialized++;
          expect(module.sysState).toBe('SYS_READY');
          for (const { startPfn, endPfn } of kernel.memlist) {
            for (const pfn of [startPfn, Math.floor((startPfn + endPfn) / 2), endPfn - 1]) {
              const page = { start: pfn * PAGE_4K, end: (pfn + 1) * PAGE_4K };
              const holders = kernel.tdmrs.filter((tdmr) => overlaps(tdmr, page));
              expect(holders).toHaveLength(1);
              const reserved = holders[0]!.reservedAreas.filter((area) => overlaps(area, page));
              const inPamt = kernel.tdmrs.some(({ pamt }) => overlaps(pamtRange(pamt), page));
              const usable = kernel.tdxMemory.some((range) => overlaps(range, page));
              const why = [...(inPamt ? ['pamt'] : []), ...(usable ? [] : ['hole'])];
              expect(reserved.map((area) => area.why)).toEqual(why);
              if (holes === 'memblock') expect(usable).toBe(true);
            }
          }
        },
      ),
      { numRuns: 60 },
    );
    expect([initialized > 0, failed > 0]).toEqual([true, true]);
  });
});
