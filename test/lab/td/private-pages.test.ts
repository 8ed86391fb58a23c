import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_2M, PAGE_4K } from '../../../src/abi/address.ts';
import { PrivatePages } from '../../../src/lab/td/private-pages.ts';

/** Few pages, far apart and close together. */
const gpa = fc
  .tuple(fc.constantFrom(0, PAGE_2M, 2 ** 46), fc.constantFrom(0, 1, 511))
  .map(([start, page]) => start + page * PAGE_4K);
const memory = fc.nat(2 ** 40 - 1).map((pfn) => pfn * PAGE_4K);

describe('PrivatePages', () => {
  it('answers as a map of the same pages', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(gpa, memory), { maxLength: 40 }), (steps) => {
        const pages = new PrivatePages();
        const model = new Map<number, number>();
        for (const [at, address] of steps) {
          if (model.delete(at)) pages.delete(at);
          else {
            model.set(at, address);
            pages.add(at, address);
          }
          expect(pages.size).toBe(model.size);
          expect(pages.has(at)).toBe(model.has(at));
          expect(pages.get(at)).toBe(model.get(at));
        }
        expect([...pages.values()].sort()).toEqual([...model.values()].sort());
      }),
    );
  });
});
