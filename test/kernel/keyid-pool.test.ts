import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KeyIdPool } from '../../src/kernel/keyid-pool.ts';

describe('KeyIdPool', () => {
  it('gives the lowest free KeyID and refuses when none is left', () => {
    const pool = new KeyIdPool(33, 3);
    expect([pool.alloc(), pool.alloc(), pool.alloc()]).toEqual([33, 34, 35]);
    expect(() => pool.alloc()).toThrow(
      expect.objectContaining({
        errno: 'ENOSPC',
        reason: expect.objectContaining({ code: 'keyids-exhausted' }),
      }),
    );
    pool.free(34);
    expect([pool.current, pool.capacity]).toEqual([2, 3]);
    expect(pool.alloc()).toBe(34);
  });

  it('refuses to free what is not allocated', () => {
    const pool = new KeyIdPool(1, 2);
    expect(() => pool.free(1)).toThrow();
    expect(() => pool.free(3)).toThrow();
  });

  it('always gives the smallest one that is free', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(9), { maxLength: 60, size: 'max' }), (picks) => {
        const pool = new KeyIdPool(10, 8);
        const held = new Set<number>();
        for (const pick of picks) {
          if (pick < 8 && held.has(10 + pick)) {
            pool.free(10 + pick);
            held.delete(10 + pick);
          } else if (held.size < 8) {
            const lowest = [10, 11, 12, 13, 14, 15, 16, 17].find((id) => !held.has(id))!;
            expect(pool.alloc()).toBe(lowest);
            held.add(lowest);
          }
          expect(pool.current).toBe(held.size);
        }
      }),
    );
  });
});
