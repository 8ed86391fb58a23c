import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CHUNK_PAGES, PageIndex } from '../../../src/kvm/guest-memfd/page-index.ts';

const LIMIT = 4 * CHUNK_PAGES;
const index = fc.integer({ min: 0, max: LIMIT - 1 });
const step = fc.oneof(
  fc.record({ kind: fc.constant('add' as const), at: index }),
  fc.record({ kind: fc.constant('fill' as const), at: index, length: fc.nat(300) }),
  fc.record({ kind: fc.constant('huge' as const), at: index }),
  fc.record({ kind: fc.constant('split' as const), at: index }),
  fc.record({ kind: fc.constant('remove' as const), at: index, length: fc.nat(1200) }),
);

describe('index of pages', () => {
  it('holds what a map holds, whatever the form of its chunks', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const pages = new PageIndex();
        const model = new Map<number, number>();
        let nextPfn = 1024;
        const add = (at: number): void => {
          if (model.has(at)) return;
          pages.add(at, nextPfn);
          model.set(at, nextPfn++);
        };
        for (const action of steps) {
          const end = Math.min(action.at + ('length' in action ? action.length : 1), LIMIT);
          const chunk = action.at - (action.at % CHUNK_PAGES);
          if (action.kind === 'add') add(action.at);
          if (action.kind === 'fill') for (let at = action.at; at < end; at++) add(at);
          if (action.kind === 'split') pages.split(action.at);
          if (action.kind === 'huge' && pages.isHole(chunk)) {
            pages.addHuge(chunk, nextPfn);
            for (let i = 0; i < CHUNK_PAGES; i++) model.set(chunk + i, nextPfn++);
          }
          if (action.kind === 'remove') {
            const taken = pages
              .remove(action.at, end)
              .flatMap((run) => Array.from({ length: run.pages }, (_, i) => [run.index + i, run.pfn + i]));
            const expected = [...model]
              .filter(([at]) => action.at <= at && at < end)
              .sort(([a], [b]) => a - b);
            expect(taken).toEqual(expected);
            for (const [at] of expected) model.delete(at);
          }
        }
        expect(pages.pages).toBe(model.size);
        for (let at = 0; at < LIMIT; at++)
          if (pages.get(at) !== model.get(at)) expect(pages.get(at)).toBe(model.get(at));
        for (const [at, pfn] of [...model].slice(0, 5)) expect(pages.indexOf(pfn)).toBe(at);
        expect(pages.indexOf(1)).toBeUndefined();
      }),
      { numRuns: 200 },
    );
  });

  it('finds what is there in ranges far longer than what is there', () => {
    const pages = new PageIndex();
    pages.add(2 ** 40, 7);
    pages.addHuge(2 ** 45, 1024);
    expect([...pages.runs(0, 2 ** 51)]).toEqual([
      { index: 2 ** 40, pfn: 7, pages: 1 },
      { index: 2 ** 45, pfn: 1024, pages: CHUNK_PAGES },
    ]);
    expect([...pages.runs(2 ** 45 + 1, 2 ** 45 + 3)]).toEqual([{ index: 2 ** 45 + 1, pfn: 1025, pages: 2 }]);
  });
});
