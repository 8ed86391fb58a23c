/** Whatever processes do in whatever order: once they are gone, so are their files and pages. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DMA, DMA_DEVICE_PATH, DMA_PIN } from '../../../src/abi/dma-device.ts';
import { MAP } from '../../../src/abi/system-call-flags.ts';
import { loadDmaDevice } from '../../../src/kernel/process/dma-device.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import { bytesOf, outcome, tinyProcess } from './tiny-process.ts';

const PAGE = 4096;
/** Where everything is mapped, so that calls meet. */
const BASE = 0x1000_0000;
const KINDS = [MAP.PRIVATE | MAP.ANONYMOUS, MAP.SHARED | MAP.ANONYMOUS, MAP.SHARED, MAP.PRIVATE];

const page = fc.nat(11);
const count = fc.integer({ min: 1, max: 6 });
const fd = fc.integer({ min: 3, max: 7 });

const step = fc.oneof(
  fc.record({ do: fc.constant('memfd' as const) }),
  fc.record({ do: fc.constant('device' as const) }),
  fc.record({ do: fc.constant('close' as const), fd }),
  fc.record({ do: fc.constant('dup' as const), fd }),
  fc.record({ do: fc.constant('truncate' as const), fd, count }),
  fc.record({ do: fc.constant('punch' as const), fd, page, count }),
  fc.record({ do: fc.constant('mmap' as const), fd, page, count, kind: fc.nat(3) }),
  fc.record({ do: fc.constant('munmap' as const), page, count }),
  fc.record({ do: fc.constant('store' as const), page, count }),
  fc.record({ do: fc.constant('load' as const), page, count }),
  fc.record({ do: fc.constant('advise' as const), page, count, advice: fc.constantFrom(4, 9, 10, 22, 23) }),
  fc.record({ do: fc.constant('bind' as const), page, count, mode: fc.nat(5) }),
  fc.record({ do: fc.constant('pin' as const), fd, page, count }),
  fc.record({ do: fc.constant('fork' as const) }),
  fc.record({ do: fc.constant('exit' as const) }),
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

async function take(task: Task, action: Step, tasks: Task[]): Promise<unknown> {
  const at = 'page' in action ? BASE + action.page * PAGE : 0;
  const length = 'count' in action ? action.count * PAGE : 0;
  switch (action.do) {
    case 'memfd':
      return task.memfdCreate('x');
    case 'device':
      return task.open(DMA_DEVICE_PATH);
    case 'close':
      return task.close(action.fd);
    case 'dup':
      return task.dup(action.fd);
    case 'truncate':
      return task.ftruncate(action.fd, length - 100);
    case 'punch':
      return task.fallocate(action.fd, 3, action.page * PAGE, length);
    case 'mmap': {
      const flags = KINDS[action.kind]! | MAP.FIXED;
      return task.mmap({ address: at, lengthBytes: length, prot: 3, flags, fd: action.fd });
    }
    case 'munmap':
      return task.munmap(at, length);
    case 'store':
      return task.store(at + 10, bytesOf(7, length));
    case 'load':
      return task.load(at, length);
    case 'advise':
      return task.madvise(at, length, action.advice);
    case 'bind':
      return task.mbind(at, length, action.mode, [0, 1]);
    case 'pin': {
      const arg = DMA_PIN.encode({ address: BigInt(at), length: BigInt(length) });
      return task.ioctl(action.fd, DMA.PIN, arg);
    }
    case 'fork':
      return tasks.push(await task.fork());
    case 'exit':
      tasks.splice(tasks.indexOf(task), 1);
      return task.exit();
  }
}

/** The references that page tables, files and pins hold add up, which the allocator's account shows at the end. */
const plan = fc.array(fc.record({ who: fc.nat(3), action: step }), { minLength: 5, maxLength: 50 });

describe('processes', () => {
  it('leave nothing behind, whatever they did one after the other', async () => {
    await fc.assert(
      fc.asyncProperty(plan, async (steps) => {
        const { kernel, task, usedPages } = tinyProcess();
        loadDmaDevice(kernel);
        const tasks = [task];
        for (const { who, action } of steps) {
          const actor = tasks[who % tasks.length];
          if (actor !== undefined) await outcome(() => take(actor, action, tasks));
          expect(kernel.pageRefs.size).toBe(usedPages());
        }
        for (const left of tasks) await left.exit();
        expect(kernel.openObjects.all).toEqual({});
        expect([usedPages(), kernel.pageRefs.size]).toEqual([0, 0]);
        kernel.allocator.audit();
      }),
      { numRuns: 150 },
    );
  });

  it('leave nothing behind, whatever they did at once, and however slow KVM was to give up pages', async () => {
    await fc.assert(
      fc.asyncProperty(plan, fc.infiniteStream(fc.nat(4)), async (steps, delays) => {
        const { kernel, task, usedPages } = tinyProcess();
        loadDmaDevice(kernel);
        const second = await task.fork();
        const tasks = [task, second, task.thread(1), second.thread(2)];
        let [begun, ended] = [0, 0];
        for (const { process } of [task, second]) {
          process.memory.notifiers.add({
            invalidateStart: async () => {
              begun++;
              for (let turns = delays.next().value; turns > 0; turns--) await Promise.resolve();
            },
            invalidateEnd: () => {
              ended++;
            },
          });
        }
        const spawned: Task[] = [];
        const live = steps.filter(({ action }) => action.do !== 'exit');
        await Promise.all(live.map(({ who, action }) => outcome(() => take(tasks[who]!, action, spawned))));
        expect(kernel.pageRefs.size).toBe(usedPages());
        await Promise.all([task, second, ...spawned].map((each) => each.exit()));
        expect(ended).toBe(begun);
        expect(kernel.openObjects.all).toEqual({});
        expect([usedPages(), kernel.pageRefs.size]).toEqual([0, 0]);
      }),
      { numRuns: 150 },
    );
  });

  it('are refused with a reason, or served, whatever numbers they give', async () => {
    const number = fc.oneof(
      fc.constantFrom(0, 1, 3, 4, 4095, 4096, BASE, 2 ** 31, 2 ** 32, 2 ** 47, 2 ** 52, 2 ** 63, 2 ** 64),
      fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, -0.5, -1, -4096),
      fc.double(),
      fc.integer(),
    );
    const wide = fc.oneof(number, fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n }));
    await fc.assert(
      fc.asyncProperty(fc.array(number, { minLength: 6, maxLength: 6 }), wide, wide, async (n, a, b) => {
        const { kernel, task, usedPages } = tinyProcess();
        loadDmaDevice(kernel);
        const memfd = task.memfdCreate('x');
        const device = await task.open(DMA_DEVICE_PATH);
        const [n0, n1, n2, n3, n4, n5] = n as [number, number, number, number, number, number];
        const small = Math.abs(n5 % 5000) || 0;
        const calls = [
          () => task.ioctl(device, n0, a),
          () => task.ioctl(device, DMA.PIN, a),
          () => task.fallocate(memfd, n0 | FALLOCATE_HOLE, a, b),
          () => task.fallocate(n0, n1, a, b),
          () => task.ftruncate(memfd, a),
          () => task.pread(memfd, small, a),
          () => task.pwrite(memfd, bytesOf(1, small), a),
          () =>
            task.mmap({
              address: n0,
              lengthBytes: n1,
              prot: n2,
              flags: n3 & ~MAP.POPULATE,
              fd: n4,
              offset: a,
            }),
          () => task.mmap({ lengthBytes: small, prot: n2, flags: MAP.SHARED, fd: memfd, offset: a }),
          () => task.madvise(n0, n1, n2),
          () => task.mbind(n0, n1, n2, [n3, n4], n5),
          () => task.getMempolicy(n0),
          () => task.pageNodes(n),
          () => task.memfdCreate('y', n0),
          () => task.load(n0, small),
          () => task.store(n0, bytesOf(1, small)),
          () => task.munmap(n0, n1),
          () => task.close(n0),
        ];
        for (const call of calls) await outcome(call);
        await task.exit();
        expect(usedPages()).toBe(0);
        expect(kernel.openObjects.all).toEqual({});
      }),
      { numRuns: 200 },
    );
  });
});

/** Only holes: filling a file with 2^63 bytes would take its time. */
const FALLOCATE_HOLE = 3;
