import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ReadWriteLock, SleepLock } from '../../../src/kernel/process/lock.ts';

/** Lets everything run that does not wait for us. */
const settle = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await Promise.resolve();
};

describe('SleepLock', () => {
  it('lets one in at a time, first come first served', async () => {
    const lock = new SleepLock();
    const order: string[] = [];
    const visit = (name: string): Promise<void> =>
      lock.run(async () => {
        order.push(`${name} in`);
        await settle();
        order.push(`${name} out`);
      });
    await Promise.all(['a', 'b', 'c'].map(visit));
    expect(order).toEqual(['a in', 'a out', 'b in', 'b out', 'c in', 'c out']);
    expect(lock.isHeld).toBe(false);
  });

  it('lets nobody slip in between a release and who waits', async () => {
    const lock = new SleepLock();
    await lock.acquire();
    const waiting = lock.acquire();
    lock.release();
    expect(lock.tryAcquire()).toBe(false);
    await waiting;
    lock.release();
    expect(lock.tryAcquire()).toBe(true);
  });

  it('is free again after work that failed', async () => {
    const lock = new SleepLock();
    await expect(
      lock.run(() => {
        throw new Error('no');
      }),
    ).rejects.toThrow('no');
    expect(lock.isHeld).toBe(false);
    expect(() => lock.release()).toThrow('nobody held');
  });
});

describe('ReadWriteLock', () => {
  it('lets readers in together and writers alone', async () => {
    const lock = new ReadWriteLock();
    await lock.acquireRead();
    await lock.acquireRead();
    let wrote = false;
    const writer = lock.write(() => {
      wrote = true;
    });
    await settle();
    expect(wrote).toBe(false);
    lock.releaseRead();
    lock.releaseRead();
    await writer;
    expect(wrote).toBe(true);
    expect(lock.isHeld).toBe(false);
  });

  it('keeps readers that come later behind a writer that waits', async () => {
    const lock = new ReadWriteLock();
    const order: string[] = [];
    await lock.acquireRead();
    const writer = lock.write(() => void order.push('writer'));
    const reader = lock.read(() => void order.push('reader'));
    await settle();
    expect(order).toEqual([]);
    lock.releaseRead();
    await Promise.all([writer, reader]);
    expect(order).toEqual(['writer', 'reader']);
  });

  it('refuses to be released by nobody', () => {
    const lock = new ReadWriteLock();
    expect(() => lock.releaseRead()).toThrow('nobody read');
    expect(() => lock.releaseWrite()).toThrow('nobody wrote');
  });

  it('never has a writer beside anybody, and lets everybody in at last', async () => {
    const visits = fc.array(fc.record({ write: fc.boolean(), stays: fc.nat(3) }), { maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(visits, async (plan) => {
        const lock = new ReadWriteLock();
        let [readers, writers, done] = [0, 0, 0];
        const work = async (write: boolean, stays: number): Promise<void> => {
          if (write) writers++;
          else readers++;
          expect(writers === 0 || (writers === 1 && readers === 0)).toBe(true);
          for (let i = 0; i < stays; i++) await Promise.resolve();
          if (write) writers--;
          else readers--;
          done++;
        };
        await Promise.all(
          plan.map(({ write, stays }) =>
            write ? lock.write(() => work(true, stays)) : lock.read(() => work(false, stays)),
          ),
        );
        expect(done).toBe(plan.length);
        expect(lock.isHeld).toBe(false);
      }),
    );
  });
});
