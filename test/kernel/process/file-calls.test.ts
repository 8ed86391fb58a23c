import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FALLOC_FL, MFD, O } from '../../../src/abi/system-call-flags.ts';
import { UserFault } from '../../../src/kernel/process/system-calls.ts';
import { bytesOf, fileThat, outcome, tinyProcess } from './tiny-process.ts';

const KEEP = FALLOC_FL.KEEP_SIZE;
const PUNCH = FALLOC_FL.PUNCH_HOLE;
const BIGGEST = 2n ** 63n - 1n;

describe('open and close', () => {
  it('open what a driver has registered, and say what there is otherwise', async () => {
    const { kernel, task } = tinyProcess();
    const device = fileThat({ kind: 'printer' });
    kernel.devices.register('/dev/printer', () => device);
    const fd = await task.open('/dev/printer');
    expect(kernel.openObjects.count('printer')).toBe(1);
    await task.close(fd);
    expect(device.released).toBe(true);
    expect(kernel.openObjects.count('printer')).toBe(0);
    await expect(task.open('/dev/kvm')).rejects.toMatchObject({
      errno: 'ENOENT',
      reason: { data: { devices: ['/dev/printer'] } },
    });
  });

  it.each([
    ['', 'ENOENT'],
    ['/', 'EISDIR'],
    ['/dev', 'EISDIR'],
    ['/dev/', 'EISDIR'],
    ['/de', 'ENOENT'],
    ['/dev/printe', 'ENOENT'],
    ['/dev/printer2', 'ENOENT'],
    ['/dev/printer/', 'ENOTDIR'],
    ['/dev/printer/x/y', 'ENOTDIR'],
    ['//dev/./printer', 'done'],
    ['dev/printer', 'done'],
    [`/${'x'.repeat(255)}`, 'ENOENT'],
    [`/${'x'.repeat(256)}`, 'ENAMETOOLONG'],
    ['/x'.repeat(2048), 'ENAMETOOLONG'],
  ])('look up %s: %s', async (path, wanted) => {
    const { kernel, task } = tinyProcess();
    kernel.devices.register('/dev/printer', () => fileThat());
    expect(await outcome(() => task.open(path))).toBe(wanted);
  });

  it('give the lowest descriptor that is free, from 3 on', async () => {
    const { task } = tinyProcess();
    const fds = [1, 2, 3].map((n) => task.memfdCreate(`${n}`));
    expect(fds).toEqual([3, 4, 5]);
    await task.close(4);
    expect(task.memfdCreate('again')).toBe(4);
    expect(task.dup(3)).toBe(6);
    expect(await outcome(() => task.close(7))).toBe('EBADF');
  });

  it('refuse more files than the limit, and make none then', async () => {
    const { kernel, task } = tinyProcess();
    const first = task.memfdCreate('first');
    while (task.process.openFiles < 1021) task.dup(first);
    let opened = 0;
    kernel.devices.register('/dev/x', () => {
      opened++;
      return fileThat();
    });
    for (const call of [() => task.memfdCreate('x'), () => task.dup(first), () => task.open('/dev/x')]) {
      expect(await outcome(call)).toBe('EMFILE');
    }
    expect(opened).toBe(0);
    const late = fileThat();
    expect(await outcome(() => task.installFile(late))).toBe('EMFILE');
    expect(late.released).toBe(true);
  });

  it('close a file with its last descriptor, and not while a call is under way', async () => {
    const { task } = tinyProcess();
    let end = (): void => undefined;
    const file = fileThat({ ioctl: () => new Promise((resolve) => (end = () => resolve(7))) });
    const fd = await task.installFile(file);
    const twin = task.dup(fd);
    await task.close(fd);
    const call = task.ioctl(twin, 1);
    await task.thread().close(twin);
    expect(file.released).toBe(false);
    end();
    expect(await call).toBe(7);
    expect(file.released).toBe(true);
  });
});

describe('a descriptor that is not open', () => {
  it('is EBADF for every call', async () => {
    const { task } = tinyProcess();
    const calls = [
      () => task.close(3),
      () => task.dup(3),
      () => task.ioctl(3, 0),
      () => task.fallocate(3, 0, -1, 0),
      () => task.ftruncate(3, 0),
      () => task.fstat(3),
      () => task.fdinfo(3),
      () => task.read(3, 1),
      () => task.write(3, bytesOf(0)),
      () => task.pread(3, 1, 0),
      () => task.pwrite(3, bytesOf(0), 0),
      () => task.mmap({ lengthBytes: 0, prot: 1, flags: 1, fd: 3 }),
    ];
    for (const call of calls) expect(await outcome(call)).toBe('EBADF');
  });
});

describe('a file that can do nothing', () => {
  it('answers as the VFS answers for it', async () => {
    const { task } = tinyProcess();
    const fd = await task.installFile(fileThat());
    expect(await outcome(() => task.ioctl(fd, 0xae00))).toBe('ENOTTY');
    expect(await outcome(() => task.fallocate(fd, 0, 0, 4096))).toBe('ENODEV');
    expect(await outcome(() => task.ftruncate(fd, 0))).toBe('EINVAL');
    expect(await outcome(() => task.read(fd, 1))).toBe('EINVAL');
    expect(await outcome(() => task.write(fd, bytesOf(1)))).toBe('EINVAL');
    expect(await outcome(() => task.pread(fd, 1, 0))).toBe('ESPIPE');
    expect(await outcome(() => task.pwrite(fd, bytesOf(1), 0))).toBe('ESPIPE');
    expect(await outcome(() => task.mmap({ lengthBytes: 1, prot: 1, flags: 1, fd }))).toBe('ENODEV');
  });

  it('can be looked at', async () => {
    const { task } = tinyProcess();
    const fd = await task.installFile(fileThat({ fdinfo: () => ({ state: 'sealed' }) }));
    expect(task.fstat(fd)).toMatchObject({ inode: 99, links: 1 });
    expect(task.fdinfo(fd)).toEqual({ pos: '0', flags: '02000002', ino: '99', state: 'sealed' });
  });
});

describe('fallocate', () => {
  it.each([
    ['a negative offset', 0, -4096n, 4096n, 'EINVAL'],
    ['an offset of 2^63, which is negative', 0, 2n ** 63n, 4096n, 'EINVAL'],
    ['no length', 0, 0n, 0n, 'EINVAL'],
    ['a negative length', 0, 0n, -1n, 'EINVAL'],
    ['a range before the mode', 0x1000, 0n, 0n, 'EINVAL'],
    ['an unknown mode', 0x1000, 0n, 4096n, 'EOPNOTSUPP'],
    ['a hole that does not keep the size', PUNCH, 0n, 4096n, 'EOPNOTSUPP'],
    ['two operations at once', PUNCH | FALLOC_FL.ZERO_RANGE | KEEP, 0n, 4096n, 'EOPNOTSUPP'],
    ['a collapse that keeps the size', FALLOC_FL.COLLAPSE_RANGE | KEEP, 0n, 4096n, 'EOPNOTSUPP'],
    ['an end beyond 2^63 - 1', 0, BIGGEST, 1n, 'EFBIG'],
    ['the biggest offset there is', KEEP | PUNCH, BIGGEST - 1n, 1n, 'done'],
    ['a hole', KEEP | PUNCH, 0n, 4096n, 'done'],
  ])('of %s', async (_, mode, offset, length, wanted) => {
    const { task } = tinyProcess();
    const asked: unknown[] = [];
    const file = fileThat({ fallocate: async (...args) => void asked.push(args.slice(0, 3)) });
    const fd = await task.installFile(file);
    expect(await outcome(() => task.fallocate(fd, mode, offset, length))).toBe(wanted);
    expect(asked).toEqual(wanted === 'done' ? [[mode, offset, length]] : []);
  });

  it('needs a file that is open for writing', async () => {
    const { task } = tinyProcess();
    const fd = await task.installFile(fileThat({ fallocate: async () => undefined }), { flags: O.RDONLY });
    expect(await outcome(() => task.fallocate(fd, 0, 0, 1))).toBe('EBADF');
  });
});

describe('memfd', () => {
  it('grows by writing and by ftruncate, and reads what was written', async () => {
    const { task, usedPages } = tinyProcess();
    const fd = task.memfdCreate('notes');
    expect(await task.write(fd, bytesOf(1, 5000))).toBe(5000);
    expect(await task.pwrite(fd, bytesOf(2, 10), 4090)).toBe(10);
    expect(task.fstat(fd)).toMatchObject({ sizeBytes: 5000, blocks: 16 });
    expect([...(await task.pread(fd, 12, 4089))]).toEqual([1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]);
    await task.ftruncate(fd, 2n ** 40n);
    expect(task.fstat(fd).sizeBytes).toBe(2 ** 40);
    expect(usedPages()).toBe(2);
    expect((await task.read(fd, 100)).every((byte) => byte === 0)).toBe(true);
    await task.ftruncate(fd, 4096 + 10);
    await task.ftruncate(fd, 8192);
    expect((await task.pread(fd, 30, 4096)).filter((byte) => byte !== 0).length).toBe(10);
    expect((await task.pread(fd, 100, 8190)).length).toBe(2);
    expect((await task.pread(fd, 100, 8192)).length).toBe(0);
    expect((await task.pread(fd, 100, BIGGEST - 200n)).length).toBe(0);
    await task.close(fd);
    expect(usedPages()).toBe(0);
  });

  it('has holes punched: whole pages go, parts become zero', async () => {
    const { task, usedPages } = tinyProcess();
    const fd = task.memfdCreate('holes');
    await task.write(fd, bytesOf(7, 4 * 4096));
    await task.fallocate(fd, PUNCH | KEEP, 4000, 4096 + 200);
    expect(usedPages()).toBe(3);
    const bytes = await task.pread(fd, 4 * 4096, 0);
    expect(bytes.indexOf(0)).toBe(4000);
    expect(bytes.subarray(4000, 8296).every((byte) => byte === 0)).toBe(true);
    expect(bytes.subarray(8296).every((byte) => byte === 7)).toBe(true);
    await task.fallocate(fd, PUNCH | KEEP, 100, 10);
    expect((await task.pread(fd, 12, 99)).filter((byte) => byte === 0).length).toBe(10);
    expect(task.fstat(fd).sizeBytes).toBe(4 * 4096);
  });

  it('is filled by fallocate, keeping its size only where asked to', async () => {
    const { kernel, task, usedPages } = tinyProcess();
    const fd = task.memfdCreate('filled');
    await task.fallocate(fd, KEEP, 0, 8192);
    expect([task.fstat(fd).sizeBytes, usedPages()]).toEqual([0, 2]);
    await task.fallocate(fd, 0, 4096, 4097);
    expect([task.fstat(fd).sizeBytes, usedPages()]).toEqual([8193, 3]);
    kernel.allocator.fault = () => usedPages() >= 4;
    expect(await outcome(() => task.fallocate(fd, 0, 0, 16 * 4096))).toBe('ENOSPC');
    expect([task.fstat(fd).sizeBytes, usedPages()]).toEqual([8193, 3]);
    expect(await outcome(() => task.fallocate(fd, FALLOC_FL.ZERO_RANGE, 0, 1))).toBe('EOPNOTSUPP');
  });

  it('refuses unknown flags and long names, and is refused negative sizes and positions', async () => {
    const { task } = tinyProcess();
    expect(await outcome(() => task.memfdCreate('x', 0x1000))).toBe('EINVAL');
    expect(await outcome(() => task.memfdCreate('x', MFD.EXEC | MFD.NOEXEC_SEAL))).toBe('EINVAL');
    expect(await outcome(() => task.memfdCreate('x', MFD.NOEXEC_SEAL))).toBe('done');
    expect(await outcome(() => task.memfdCreate('ä'.repeat(125)))).toBe('EINVAL');
    const fd = task.memfdCreate('ä'.repeat(124), MFD.CLOEXEC | MFD.ALLOW_SEALING);
    expect(task.fdinfo(fd).flags).toBe('0100002');
    expect(await outcome(() => task.ftruncate(fd, -1))).toBe('EINVAL');
    expect(await outcome(() => task.pread(fd, 1, -1))).toBe('EINVAL');
    expect(await outcome(() => task.pwrite(fd, bytesOf(0), 2n ** 63n - 10n))).toBe('EINVAL');
  });

  it('is what the kernel says it is when it is to be inaccessible', async () => {
    const { kernel, task } = tinyProcess();
    kernel.inaccessibleMemfd = (name, flags) => fileThat({ kind: `${name} ${flags}` });
    const fd = task.memfdCreate('guest', MFD.INACCESSIBLE);
    expect(task.process.files.get(fd).object.kind).toBe('guest 8');
  });

  it('holds the bytes that a plain array would', async () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('write' as const), at: fc.nat(20_000), length: fc.nat(6000) }),
      fc.record({
        do: fc.constant('punch' as const),
        at: fc.nat(20_000),
        length: fc.integer({ min: 1, max: 9000 }),
      }),
      fc.record({ do: fc.constant('truncate' as const), at: fc.nat(20_000), length: fc.constant(0) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        const { task, usedPages } = tinyProcess();
        const fd = task.memfdCreate('model');
        const model = new Uint8Array(40_000);
        let size = 0;
        for (const [index, { do: what, at, length }] of steps.entries()) {
          if (what === 'write') {
            await task.pwrite(fd, bytesOf(index + 1, length), at);
            model.fill(index + 1, at, at + length);
            if (length > 0) size = Math.max(size, at + length);
          } else if (what === 'punch') {
            await task.fallocate(fd, PUNCH | KEEP, at, length);
            model.fill(0, at, at + length);
          } else {
            await task.ftruncate(fd, at);
            model.fill(0, at);
            size = at;
          }
        }
        expect(task.fstat(fd).sizeBytes).toBe(size);
        expect(await task.pread(fd, 40_000, 0)).toEqual(model.slice(0, size));
        await task.close(fd);
        expect(usedPages()).toBe(0);
      }),
      { numRuns: 60 },
    );
  });
});

describe('copyIn and copyOut', () => {
  it('reach buffers and user memory alike, and are EFAULT beyond either', async () => {
    const { task } = tinyProcess();
    const address = await task.mmap({ lengthBytes: 4096, prot: 3, flags: 0x22 });
    for (const arg of [new Uint8Array(16), address, BigInt(address)]) {
      await task.copyOut(arg, new Uint8Array([1, 2, 3]), 4);
      expect([...(await task.copyIn(arg, 5, 3))]).toEqual([0, 1, 2, 3, 0]);
    }
    expect(await outcome(() => task.copyIn(new Uint8Array(3), 4))).toBe('EFAULT');
    expect(await outcome(() => task.copyOut(new Uint8Array(3), bytesOf(0, 2), 2))).toBe('EFAULT');
    for (const arg of [0, -1, 2n ** 64n - 1n, address + 4094, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(await outcome(() => task.copyIn(arg, 4))).toBe('EFAULT');
      expect(await outcome(() => task.copyOut(arg, bytesOf(0, 4)))).toBe('EFAULT');
    }
  });
});

describe('signals', () => {
  it('end a call that sleeps, once', async () => {
    const { task } = tinyProcess();
    const never = new Promise<void>(() => undefined);
    const fd = await task.installFile(
      fileThat({
        ioctl: (request, _, caller) =>
          caller.interruptible(request === 0 ? never : Promise.resolve()).then(() => 1),
      }),
    );
    const asleep = outcome(() => task.ioctl(fd, 0));
    task.signal();
    expect(await asleep).toBe('EINTR');
    expect(await task.ioctl(fd, 1)).toBe(1);
    task.signal();
    expect(task.signalPending).toBe(true);
    expect(await outcome(() => task.ioctl(fd, 1))).toBe('EINTR');
    expect(await task.ioctl(fd, 1)).toBe(1);
  });

  it('come to every thread that ends with its process, before files are closed', async () => {
    const { task } = tinyProcess();
    const never = new Promise<number>(() => undefined);
    const order: string[] = [];
    const fd = await task.installFile(
      fileThat({
        ioctl: (_request, _arg, caller) => caller.interruptible(never),
        release: async () => void order.push('closed'),
      }),
    );
    const other = outcome(() => task.thread().ioctl(fd, 0)).then((how) => order.push(how));
    await task.exit();
    await other;
    expect(order).toEqual(['EINTR', 'closed']);
    await expect(task.open('/dev/kvm')).rejects.toThrow('has exited');
  });
});

it('names the access in a UserFault', () => {
  expect(new UserFault('SIGBUS', 0x1000, 'why').message).toBe('SIGBUS at 0x1000: why');
});
