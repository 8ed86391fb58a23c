/** The kernel that runs the tests and the model are asked the same, and must answer alike. */
import { release } from 'node:os';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FALLOC_FL, MADV, MAP, MFD, MPOL, O, PROT } from '../../../src/abi/system-call-flags.ts';
import type { SystemCalls } from '../../../src/kernel/process/system-calls.ts';
import { isLinux, LinuxSystemCalls } from '../../support/linux-system-calls.ts';
import '../../support/seed.ts';
import { ANONYMOUS, bytesOf, outcome, READ_WRITE, tinyProcess } from './tiny-process.ts';

const PAGE = 4096;
const BIGGEST = 2n ** 63n - 1n;
const HOLE = FALLOC_FL.PUNCH_HOLE | FALLOC_FL.KEEP_SIZE;
/** Where both map: neither the system nor the runtime puts anything there. */
const BASE = 2 ** 40;

type Calls = SystemCalls;
const memfdOf = (calls: Calls, pages = 1) => {
  const fd = calls.memfdCreate('compared');
  return calls.ftruncate(fd, pages * PAGE).then(() => fd);
};
const mapped = (calls: Calls, prot: number, flags: number, fd = -1) =>
  calls.mmap({ address: BASE, lengthBytes: 3 * PAGE, prot, flags: flags | MAP.FIXED, fd });
const anonymous = (calls: Calls) => mapped(calls, READ_WRITE, ANONYMOUS);
/** Three pages with a hole in the middle. */
const withHole = async (calls: Calls) => {
  await anonymous(calls);
  await calls.munmap(BASE + PAGE, PAGE);
};

/** Calls by name; what comes before the call in question does no harm where it fails. */
const CALLS: Readonly<Record<string, (calls: Calls) => Promise<unknown>>> = {
  'fallocate: bad descriptor before range': async (c) => c.fallocate(999, 0, -1, 0),
  'fallocate: range before mode': async (c) => c.fallocate(await memfdOf(c), 0x1000, 0, 0),
  'fallocate: mode': async (c) => c.fallocate(await memfdOf(c), 0x1000, 0, PAGE),
  'fallocate: hole without KEEP_SIZE': async (c) => c.fallocate(await memfdOf(c), 2, 0, PAGE),
  'fallocate: two operations': async (c) => c.fallocate(await memfdOf(c), 0x13, 0, PAGE),
  'fallocate: ZERO_RANGE': async (c) => c.fallocate(await memfdOf(c), 0x10, 0, PAGE),
  'fallocate: end beyond 2^63': async (c) => c.fallocate(await memfdOf(c), 1, BIGGEST, 1),
  'fallocate: hole at the end of everything': async (c) => c.fallocate(await memfdOf(c), 3, BIGGEST - 1n, 1),
  'ftruncate: negative before the descriptor': async (c) => c.ftruncate(999, -1),
  'ftruncate: to 2^63 - 1': async (c) => c.ftruncate(await memfdOf(c), BIGGEST),
  'pread: negative before the descriptor': async (c) => c.pread(999, 1, -1),
  'pread: at 2^63 - 1': async (c) => c.pread(await memfdOf(c), 1, BIGGEST),
  'pread: just before': async (c) => c.pread(await memfdOf(c), 1, BIGGEST - 1n),
  'ioctl: of a memfd': async (c) => c.ioctl(await memfdOf(c), 0xae00),
  'open: empty': (c) => c.open(''),
  'open: no such': (c) => c.open('/dev/no-such-device'),
  'open: long name': (c) => c.open(`/${'x'.repeat(256)}`),
  'open: long path': (c) => c.open('/x'.repeat(2048)),
  'memfd_create: unknown flags': async (c) => c.memfdCreate('x', 0x1000),
  'memfd_create: executable and not': async (c) => c.memfdCreate('x', MFD.EXEC | MFD.NOEXEC_SEAL),
  'memfd_create: 249 bytes': async (c) => c.memfdCreate('x'.repeat(249)),
  'memfd_create: 250 bytes': async (c) => c.memfdCreate('x'.repeat(250)),
  'mmap: unaligned offset first': (c) => c.mmap({ lengthBytes: 0, prot: 3, flags: 0, fd: 999, offset: 1 }),
  'mmap: bad descriptor before length': (c) => c.mmap({ lengthBytes: 0, prot: 3, flags: 2, fd: 999 }),
  'mmap: no length': (c) => c.mmap({ lengthBytes: 0, prot: 3, flags: ANONYMOUS }),
  'mmap: 2^47 bytes': (c) => c.mmap({ lengthBytes: 2 ** 47, prot: 3, flags: ANONYMOUS }),
  'mmap: no type': (c) => c.mmap({ lengthBytes: PAGE, prot: 3, flags: MAP.ANONYMOUS }),
  'mmap: anonymous SHARED_VALIDATE': (c) => c.mmap({ lengthBytes: PAGE, prot: 3, flags: 0x23 }),
  'mmap: unaligned address': (c) =>
    c.mmap({ address: BASE + 1, lengthBytes: PAGE, prot: 3, flags: ANONYMOUS | MAP.FIXED }),
  'mmap: address beyond the end': (c) =>
    c.mmap({ address: 2 ** 47 - PAGE, lengthBytes: PAGE, prot: 3, flags: ANONYMOUS | MAP.FIXED }),
  'mmap: taken and NOREPLACE': async (c) =>
    anonymous(c).then(() => mapped(c, READ_WRITE, ANONYMOUS | MAP.FIXED_NOREPLACE)),
  'mmap: file without type': async (c) => mapped(c, READ_WRITE, 0, await memfdOf(c)),
  'mmap: unknown flag of SHARED_VALIDATE': async (c) => mapped(c, 1, 3 | 0x40_0000, await memfdOf(c)),
  'mmap: end of a file at 2^63': async (c) =>
    c.mmap({ lengthBytes: PAGE, prot: 1, flags: 1, fd: await memfdOf(c), offset: BIGGEST - 4095n }),
  'munmap: unaligned': (c) => c.munmap(BASE + 1, PAGE),
  'munmap: no length': (c) => c.munmap(BASE, 0),
  'munmap: beyond the end': (c) => c.munmap(2 ** 47 - PAGE, PAGE),
  'munmap: nothing there': (c) => c.munmap(BASE + 2 ** 30, PAGE),
  'madvise: unknown advice first': (c) => c.madvise(1, 0, 999),
  'madvise: unaligned': (c) => c.madvise(BASE + 1, PAGE, MADV.DONTNEED),
  'madvise: nothing there, no length': (c) => c.madvise(BASE + 2 ** 30, 0, MADV.DONTNEED),
  'madvise: REMOVE of private memory': async (c) =>
    anonymous(c).then(() => c.madvise(BASE, PAGE, MADV.REMOVE)),
  'madvise: REMOVE of a private file mapping': async (c) =>
    mapped(c, READ_WRITE, MAP.PRIVATE, await memfdOf(c)).then(() => c.madvise(BASE, PAGE, MADV.REMOVE)),
  'madvise: REMOVE beyond the end of a file': async (c) =>
    mapped(c, READ_WRITE, MAP.SHARED, await memfdOf(c)).then(() => c.madvise(BASE, 2 * PAGE, MADV.REMOVE)),
  'madvise: COLLAPSE of small memory': async (c) =>
    anonymous(c).then(() => c.madvise(BASE, PAGE, MADV.COLLAPSE)),
  'madvise: POPULATE_WRITE where writes are forbidden': async (c) =>
    mapped(c, PROT.READ, ANONYMOUS).then(() => c.madvise(BASE, PAGE, MADV.POPULATE_WRITE)),
  'madvise: POPULATE_READ of PROT_NONE': async (c) =>
    mapped(c, PROT.NONE, ANONYMOUS).then(() => c.madvise(BASE, PAGE, MADV.POPULATE_READ)),
  'madvise: POPULATE_READ beyond the end of a file': async (c) =>
    mapped(c, READ_WRITE, MAP.SHARED, await memfdOf(c)).then(() =>
      c.madvise(BASE, 2 * PAGE, MADV.POPULATE_READ),
    ),
  ...Object.fromEntries(
    (['DONTNEED', 'REMOVE', 'POPULATE_READ', 'HUGEPAGE', 'COLLAPSE', 'DONTFORK'] as const).map((advice) => [
      `madvise: ${advice} over a hole`,
      (c: Calls) => withHole(c).then(() => c.madvise(BASE, 3 * PAGE, MADV[advice])),
    ]),
  ),
};

/** mbind: address, length, mode, nodes, flags. */
const BINDS: readonly Parameters<Calls['mbind']>[] = [
  [BASE, PAGE, 999, [0]],
  [BASE, PAGE, -1, [0]],
  [BASE, PAGE, MPOL.BIND, [0], 8],
  [BASE, PAGE, MPOL.BIND, []],
  [BASE, PAGE, MPOL.BIND, [60]],
  [BASE, PAGE, MPOL.BIND, [0, 60]],
  [BASE, PAGE, MPOL.INTERLEAVE, []],
  [BASE, PAGE, MPOL.DEFAULT, [0]],
  [BASE, PAGE, MPOL.LOCAL, [0]],
  [BASE, PAGE, MPOL.PREFERRED, []],
  [BASE, PAGE, MPOL.PREFERRED, [60]],
  [BASE, PAGE, MPOL.PREFERRED_MANY, [0]],
  [BASE + 1, PAGE, MPOL.BIND, [0]],
  [BASE, 3 * PAGE, MPOL.BIND, [0]],
  [BASE, 3 * PAGE, MPOL.DEFAULT, []],
  [BASE - PAGE, 2 * PAGE, MPOL.BIND, [0]],
  [BASE - PAGE, 2 * PAGE, MPOL.DEFAULT, []],
  [BASE + PAGE, PAGE, MPOL.DEFAULT, []],
  [BASE + PAGE, 0, MPOL.BIND, []],
];

async function tryAll(calls: Calls, asked: (calls: Calls) => Promise<unknown>): Promise<string> {
  const result = await outcome(() => asked(calls));
  await calls.munmap(BASE - PAGE, 16 * PAGE);
  return result;
}

const page = fc.nat(5);
const pages = fc.integer({ min: 1, max: 4 });
const offset = fc.nat(5 * PAGE);
const length = fc.integer({ min: 1, max: 2 * PAGE });
const step = fc.oneof(
  fc.record({ do: fc.constant('truncate' as const), offset }),
  fc.record({ do: fc.constant('fallocate' as const), mode: fc.constantFrom(0, 1, HOLE), offset, length }),
  fc.record({ do: fc.constant('write' as const), offset, length }),
  fc.record({ do: fc.constant('map' as const), page, pages, from: page, kind: fc.nat(3) }),
  fc.record({ do: fc.constant('unmap' as const), page, pages }),
  fc.record({ do: fc.constant('store' as const), offset, length }),
  fc.record({ do: fc.constant('load' as const), offset, length }),
  fc.record({
    do: fc.constant('advise' as const),
    page,
    pages,
    advice: fc.constantFrom(MADV.DONTNEED, MADV.REMOVE, MADV.POPULATE_READ, MADV.POPULATE_WRITE),
  }),
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;
const KINDS = [
  { prot: READ_WRITE, flags: MAP.SHARED },
  { prot: READ_WRITE, flags: MAP.PRIVATE },
  { prot: PROT.READ, flags: MAP.SHARED },
  { prot: READ_WRITE, flags: ANONYMOUS },
];

async function take(calls: Calls, fd: number, action: Step, value: number): Promise<unknown> {
  switch (action.do) {
    case 'truncate':
      return calls.ftruncate(fd, action.offset);
    case 'fallocate':
      return calls.fallocate(fd, action.mode, action.offset, action.length);
    case 'write':
      return calls.pwrite(fd, bytesOf(value, action.length), action.offset);
    case 'map': {
      const place = { address: BASE + action.page * PAGE, lengthBytes: action.pages * PAGE };
      const { prot, flags } = KINDS[action.kind]!;
      return calls.mmap({ ...place, prot, flags: flags | MAP.FIXED, fd, offset: action.from * PAGE });
    }
    case 'unmap':
      return calls.munmap(BASE + action.page * PAGE, action.pages * PAGE);
    case 'store':
      return calls.store(BASE + action.offset, bytesOf(value, action.length));
    case 'load':
      return calls.load(BASE + action.offset, action.length);
    case 'advise':
      return calls.madvise(BASE + action.page * PAGE, action.pages * PAGE, action.advice);
  }
}

/** What each step came to, and what is in the file and behind the mappings afterwards. */
async function run(calls: Calls, steps: readonly Step[]): Promise<readonly string[]> {
  const fd = calls.memfdCreate('compared');
  const log: string[] = [];
  const noteOf = async (work: () => Promise<unknown>): Promise<string> => {
    let result: unknown;
    const how = await outcome(async () => {
      result = await work();
    });
    // By way of the kernel both signals are alike.
    if (how === 'SIGSEGV') return 'SIGBUS';
    return result instanceof Uint8Array ? runsOf(result) : how;
  };
  for (const [index, action] of steps.entries())
    log.push(await noteOf(() => take(calls, fd, action, index + 1)));
  const { sizeBytes, blocks } = calls.fstat(fd);
  log.push(`size ${sizeBytes}, blocks ${blocks}`, await noteOf(() => calls.pread(fd, 16 * PAGE, 0)));
  for (let at = 0; at < 10; at++) log.push(await noteOf(() => calls.load(BASE + at * PAGE, PAGE)));
  await calls.munmap(BASE, 16 * PAGE);
  await calls.close(fd);
  return log;
}

/** Equal bytes in a row: `5x4096 0x10`. */
function runsOf(bytes: Uint8Array): string {
  const runs: string[] = [];
  for (let start = 0; start < bytes.length; ) {
    let end = start;
    while (end < bytes.length && bytes[end] === bytes[start]) end++;
    runs.push(`${bytes[start]}x${end - start}`);
    start = end;
  }
  return runs.join(' ');
}

/** Why the kernel that runs the tests is no measure; null where it is. */
async function whyNot(): Promise<string | null> {
  if (!isLinux) return 'this is not Linux on x86-64';
  const [major = 0, minor = 0] = release().split('.').map(Number);
  if (major * 1000 + minor < OLDEST) return `Linux ${release()} is older than what the model follows`;
  const calls = new LinuxSystemCalls();
  const blocked = await tryAll(calls, async () => {
    await anonymous(calls);
    await calls.store(BASE, await calls.load(BASE, PAGE));
    calls.mbind(BASE, PAGE, MPOL.DEFAULT, []);
  });
  return blocked === 'done' ? null : `the sandbox forbids process_vm_readv or mbind (${blocked})`;
}

/** 6.12: modes of fallocate and flags of memfd_create are as the model has them. */
const OLDEST = 6012;
const skipped = await whyNot();

describe.skipIf(skipped !== null)(
  `the model and the kernel that runs the tests${skipped === null ? '' : `: ${skipped}`}`,
  () => {
    it.each(Object.entries(CALLS))('answer alike to %s', async (_, asked) => {
      expect(await tryAll(tinyProcess().task, asked)).toBe(await tryAll(new LinuxSystemCalls(), asked));
    });

    it.each(BINDS)('answer alike to mbind of %i, %i, mode %i, nodes %j', async (...args) => {
      const asked = (calls: Calls) => withHole(calls).then(() => calls.mbind(...args));
      expect(await tryAll(tinyProcess().task, asked)).toBe(await tryAll(new LinuxSystemCalls(), asked));
    });

    it('have the same files and mappings after the same calls', async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 16 }), async (steps) => {
          const { task, usedPages } = tinyProcess();
          const model = await run(task, steps);
          expect(model).toEqual(await run(new LinuxSystemCalls(), steps));
          await task.exit();
          expect(usedPages()).toBe(0);
        }),
        { numRuns: 300 },
      );
    });

    it('open for what they say', async () => {
      const real = new LinuxSystemCalls();
      const { task } = tinyProcess();
      const flagsOf = (calls: Calls) => calls.fdinfo(calls.memfdCreate('flags')).flags;
      expect(flagsOf(task)).toBe(flagsOf(real));
      expect(Number.parseInt(flagsOf(task)!, 8)).toBe(O.RDWR | O.LARGEFILE);
    });
  },
);
