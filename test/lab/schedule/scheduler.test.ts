import { describe, expect, it } from 'vitest';
import { SleepLock } from '../../../src/kernel/process/lock.ts';
import { exploreAll, exploreSeeds, ScheduleFailure } from '../../../src/lab/schedule/explore.ts';
import { replayChooser, Scheduler, seededChooser } from '../../../src/lab/schedule/scheduler.ts';

/** Starts tasks that write their name down between their scheduling points. */
function writers(scheduler: Scheduler, names: string, steps: number, log: string[]): Promise<void>[] {
  return [...names].map((name) =>
    scheduler.start(name, async () => {
      for (let step = 0; step < steps; step++) {
        log.push(name);
        await scheduler.point(`${name}${step}`);
      }
    }),
  );
}

async function order(scheduler: Scheduler, names: string, steps: number): Promise<string> {
  const log: string[] = [];
  const tasks = writers(scheduler, names, steps, log);
  await scheduler.run();
  await Promise.all(tasks);
  return log.join('');
}

describe('a scheduler', () => {
  it('repeats the order of a seed, and has another for another seed', async () => {
    const by = (seed: bigint): Promise<string> => order(new Scheduler(seededChooser(seed)), 'abc', 5);
    expect(await by(7n)).toBe(await by(7n));
    const orders = new Set(await Promise.all([1n, 2n, 3n, 4n].map(by)));
    expect(orders.size).toBeGreaterThan(1);
  });

  it('repeats the choices of an earlier run', async () => {
    const first = new Scheduler(seededChooser(3n));
    const log = await order(first, 'abc', 4);
    const again = new Scheduler(replayChooser(first.turns.map(({ chosen }) => chosen)));
    expect(await order(again, 'abc', 4)).toBe(log);
    expect(again.turns).toEqual(first.turns);
  });

  it('visits every order of two tasks', async () => {
    const orders = new Set<string>();
    const { runs, complete } = await exploreAll(async (scheduler) => {
      orders.add(await order(scheduler, 'ab', 2));
    });
    // A task has its start and two points: 6 turns, 3 of either task.
    expect({ runs, complete, orders: orders.size }).toEqual({ runs: 20, complete: true, orders: 6 });
  });

  it('stops at its limit and says so', async () => {
    const { runs, complete } = await exploreAll(async (scheduler) => {
      await order(scheduler, 'abc', 3);
    }, 10);
    expect({ runs, complete }).toEqual({ runs: 10, complete: false });
  });

  it('comes to an end with tasks that try again and again, where delays are bounded', async () => {
    const orders = new Set<string>();
    const { runs, complete } = await exploreAll(
      async (scheduler) => {
        const log: string[] = [];
        let isDone = false;
        const waiting = scheduler.start('waiting', async () => {
          while (!isDone) {
            log.push('w');
            await scheduler.point('again');
          }
        });
        const working = scheduler.start('working', async () => {
          await scheduler.point('at work');
          isDone = true;
        });
        await scheduler.run();
        await Promise.all([waiting, working]);
        orders.add(log.join(''));
      },
      undefined,
      2,
    );
    expect(complete).toBe(true);
    expect(orders.size).toBeGreaterThan(2);
    expect(runs).toBeLessThan(30);
  });

  it('finds a race that one order has, and names the choices that repeat it', async () => {
    const race = async (scheduler: Scheduler): Promise<void> => {
      let shared = 0;
      const add = async (): Promise<void> => {
        const seen = shared;
        await scheduler.point('between load and store');
        shared = seen + 1;
      };
      const tasks = [scheduler.start('a', add), scheduler.start('b', add)];
      await scheduler.run();
      await Promise.all(tasks);
      if (shared !== 2) throw new Error(`two additions came to ${shared}`);
    };
    const failure = await exploreAll(race).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(ScheduleFailure);
    const { choices, message } = failure as ScheduleFailure;
    expect(message).toContain('two additions came to 1');
    await expect(race(new Scheduler(replayChooser(choices)))).rejects.toThrow('came to 1');
    await expect(exploreSeeds(50, race)).rejects.toThrow(/seed \d+/);
  });

  it('hands an error of a task to whoever awaits it', async () => {
    const scheduler = new Scheduler(seededChooser(1n));
    const failing = scheduler.start('failing', async () => {
      throw new Error('on purpose');
    });
    await scheduler.run();
    await expect(failing).rejects.toThrow('on purpose');
  });

  it('finds the order in which two tasks wait for each other', async () => {
    const deadlock = exploreAll(async (scheduler) => {
      const [one, two] = [new SleepLock(), new SleepLock()];
      const take = (name: string, first: SleepLock, second: SleepLock): Promise<void> =>
        scheduler.start(name, () =>
          first.run(async () => {
            await scheduler.point('holds one');
            await second.run(() => undefined);
          }),
        );
      void take('a', one, two);
      void take('b', two, one);
      await scheduler.run();
    });
    await expect(deadlock).rejects.toThrow('deadlock: none of a, b can go on');
  });
});
