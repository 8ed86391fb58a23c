/** Runs the cases of a restated selftest on every backend for which the catalogue says that they pass. */
import { describe, it } from 'vitest';
import { CATALOGUE, type CaseOf, type Column, type Suite, type SuiteName } from './catalogue.ts';
import { KITS } from './kits/index.ts';
import type { Kit } from './kits/kit.ts';

type Body = (kit: Kit) => Promise<void>;

/** `bodies` has every case of the suite that passes anywhere, and no other. Throws Error where it does not. */
export function conformance<S extends SuiteName>(suite: S, bodies: Partial<Record<CaseOf<S>, Body>>): void {
  const { cases }: Suite = CATALOGUE[suite];
  for (const [id, { on }] of Object.entries(cases)) {
    const passesSomewhere = Object.values(on).includes('passes');
    if (passesSomewhere !== id in bodies) throw new Error(`${suite}: case ${id} and the catalogue disagree`);
  }
  for (const kit of KITS) {
    const applicable = Object.entries<Body | undefined>(bodies).filter(
      ([id]) => cases[id]!.on[kit.subject.name as Column] === 'passes',
    );
    if (applicable.length === 0) continue;
    describe(`${suite} on ${kit.subject.name}`, () => {
      for (const [id, body] of applicable) it(`${id}: ${cases[id]!.title}`, () => body!(kit));
    });
  }
}
