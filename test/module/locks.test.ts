import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { STATUS } from '../../src/abi/status-codes.ts';
import {
  HP_HOST_PRIORITY,
  promoteHpLock,
  releaseHpLock,
  SharexHpLock,
  tryHpLock,
} from '../../src/module/locks.ts';

const BUSY = STATUS.TDX_OPERAND_BUSY;
const HOST_FIRST = STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY;

describe('host-priority lock', () => {
  it('admits many readers or one writer', () => {
    const lock = new SharexHpLock();
    expect(lock.try('shared')).toBe(0n);
    expect(lock.try('shared', true)).toBe(0n);
    expect(lock.try('exclusive', true)).toBe(BUSY);
    lock.release('shared');
    lock.release('shared');
    expect(lock.try('exclusive')).toBe(0n);
    expect(lock.try('shared', true)).toBe(BUSY);
  });

  it('keeps a place for a host that failed, which only a host takes', () => {
    const lock = new SharexHpLock();
    lock.try('exclusive', true);
    expect(lock.try('shared')).toBe(BUSY);
    lock.release('exclusive');
    expect(lock.words[0]).toBe(HP_HOST_PRIORITY);
    expect(lock.try('shared', true)).toBe(HOST_FIRST);
    expect(lock.try('exclusive', true)).toBe(HOST_FIRST);
    expect(lock.try('exclusive')).toBe(0n);
    lock.release('exclusive');
    expect(lock.try('shared', true)).toBe(0n);
  });

  it('promotes the only reader, and leaves the claim of one that is not alone', () => {
    const words = new Uint16Array(1);
    tryHpLock(words, 0, 'shared');
    expect(promoteHpLock(words, 0)).toBe(0n);
    releaseHpLock(words, 0, 'exclusive');
    tryHpLock(words, 0, 'shared');
    tryHpLock(words, 0, 'shared', true);
    expect(promoteHpLock(words, 0)).toBe(BUSY);
    expect(words[0]! & HP_HOST_PRIORITY).toBe(HP_HOST_PRIORITY);
  });

  it('refuses to be released by somebody who does not hold it', () => {
    const lock = new SharexHpLock();
    expect(() => lock.release('shared')).toThrow(/without being held/);
    lock.try('shared');
    expect(() => lock.release('exclusive')).toThrow(/without being held/);
  });

  it('never has a writer beside another holder, whatever the order of calls', () => {
    const step = fc.record({
      mode: fc.constantFrom('shared', 'exclusive') as fc.Arbitrary<'shared' | 'exclusive'>,
      guest: fc.boolean(),
      release: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const lock = new SharexHpLock();
        const holders: ('shared' | 'exclusive')[] = [];
        for (const { mode, guest, release } of steps) {
          if (release) {
            const holder = holders.pop();
            if (holder !== undefined) lock.release(holder);
          } else if (lock.try(mode, guest) === 0n) holders.push(mode);
          if (holders.includes('exclusive')) expect(holders).toHaveLength(1);
          expect(lock.words[0]! & 1).toBe(holders.includes('exclusive') ? 1 : 0);
        }
      }),
    );
  });
});
