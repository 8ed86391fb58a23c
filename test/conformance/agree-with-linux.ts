/** The model and the kernel that runs the tests are given the same random programs, and must answer alike. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { KVM_CAP } from '../../src/abi/kvm/capabilities.ts';
import { Interpreter, program } from './kernel-ops.ts';
import { LINUX, PLAIN } from './subjects.ts';

/** Both flags of guest_memfd: what programs use. */
const MAPPABLE_AND_SHARED = 3;

export function itAgreesWithLinux(programs: number, timeoutMs: number): void {
  it.skipIf(LINUX.skipped !== null)(
    `${programs} random programs on KVM's files and guest_memfd: the model answers as ${LINUX.name}`,
    async (context) => {
      const { session } = await LINUX.start();
      const flags = await session.capability(await session.kvm(), KVM_CAP.GUEST_MEMFD_FLAGS);
      const attributes = await session.capability(await session.kvm(), KVM_CAP.MEMORY_ATTRIBUTES);
      await session.end();
      if (flags !== MAPPABLE_AND_SHARED)
        context.skip('this kernel has no guest_memfd that user space can map');
      await fc.assert(
        fc.asyncProperty(program, async (all) => {
          const [model, real] = await Promise.all([PLAIN.start(), LINUX.start()]);
          const { policiesOfMappings = false } = real.session.quirks;
          const ops = all
            .filter(({ op }) => op !== 'policy' || !policiesOfMappings)
            // A kernel without VMs that have private memory does not know the ioctl.
            .filter(({ op }) => op !== 'attributes' || attributes !== 0);
          const expected = await new Interpreter(real.session).run(ops);
          const outcomes = await new Interpreter(model.session, real.session.quirks).run(ops);
          await model.expectBalanced();
          const steps = (results: readonly string[]) => ops.map((op, i) => ({ op, result: results[i] }));
          expect(steps(outcomes)).toEqual(steps(expected));
        }),
        { numRuns: programs },
      );
    },
    timeoutMs,
  );
}
