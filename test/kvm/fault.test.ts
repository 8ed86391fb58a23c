import { describe, expect, it } from 'vitest';
import { KVM_RUN_EXIT } from '../../src/abi/kvm/exits.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import {
  GUEST_MEMFD_FLAG,
  KVM_MEM,
  KVM_MEM_PRIVATE,
  KVM_USERSPACE_MEMORY_REGION_EXT,
} from '../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MAP, MFD } from '../../src/abi/system-call-flags.ts';
import type { LoadOptions } from '../../src/kvm/load-kvm.ts';
import type { GuestCpu, GuestFlow } from '../../src/lab/guest/flow.ts';
import { KvmSession, PAGE, READ_WRITE, refusal } from './kvm-session.ts';

const GPA = 0xc000_0000;
const PRIVATE = 8n;
const HOLE = FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE;
const SW_PROTECTED = 1;

/** A VM with private memory: a slot of `pages` pages at GPA with a file behind it. */
async function guarded(pages: number, options: LoadOptions = {}) {
  const session = await KvmSession.start(options);
  const vm = await session.createVm(SW_PROTECTED);
  const user = await session.anonymous(pages);
  const file = await session.createFile(vm, pages);
  const slot = {
    slot: 1,
    flags: KVM_MEM.GUEST_MEMFD,
    guest_phys_addr: BigInt(GPA),
    memory_size: BigInt(pages * PAGE),
    userspace_addr: BigInt(user),
    guest_memfd: file,
  };
  await session.setRegion(vm, slot);
  return { session, vm, user, file, slot };
}

/** Reads the first byte of every page, again and again, and stops at port 1 after each round. */
function reader(pages: number, seen: number[][]) {
  return function* (cpu: GuestCpu): GuestFlow {
    for (;;) {
      const round: number[] = [];
      for (let page = 0; page < pages; page++) round.push((yield* cpu.read(GPA + page * PAGE, 1))[0]!);
      seen.push(round);
      yield* cpu.out(1, 0);
    }
  };
}

describe('memory faults for user space', () => {
  it('come when the slot of private memory goes while a vCPU reads it', async () => {
    const { session, vm } = await guarded(1);
    await session.setAttributes(vm, GPA, PAGE, PRIVATE);
    const seen: number[][] = [];
    const runner = await session.runner(vm, reader(1, seen));
    expect(await runner.run()).toBe('IO');
    await session.setRegion(vm, { slot: 1, memory_size: 0n });
    const { rip } = runner.vcpu;
    expect(await refusal(runner.run())).toBe('EFAULT private-no-slot');
    expect(await runner.reason()).toBe('MEMORY_FAULT');
    const fault = { flags: 8n, gpa: BigInt(GPA), size: BigInt(PAGE) };
    expect(await runner.exit(KVM_RUN_EXIT.MEMORY_FAULT)).toEqual(fault);
    expect(runner.vcpu.rip).toBe(rip + 1n);
    expect(seen).toEqual([[0]]);
  });

  it('come for private memory without a file behind it', async () => {
    const session = await KvmSession.start();
    const vm = await session.createVm(SW_PROTECTED);
    await session.sharedSlot(vm, 1, GPA, 1);
    await session.setAttributes(vm, GPA, PAGE, PRIVATE);
    const runner = await session.runner(vm, reader(1, []));
    expect(await refusal(runner.run())).toBe('EFAULT slot-without-gmem');
    expect(await runner.exit(KVM_RUN_EXIT.MEMORY_FAULT)).toMatchObject({ flags: 8n, gpa: BigInt(GPA) });
    // Made shared, the same instruction goes on.
    await session.setAttributes(vm, GPA, PAGE, 0n);
    expect(await runner.run()).toBe('IO');
  });

  it('come after the file was closed, and shared memory goes on', async () => {
    const { session, vm, file } = await guarded(2);
    await session.setAttributes(vm, GPA, PAGE, PRIVATE);
    const seen: number[][] = [];
    const runner = await session.runner(vm, reader(2, seen));
    expect(await runner.run()).toBe('IO');
    await session.task.close(file);
    expect(await refusal(runner.run())).toBe('EFAULT slot-without-gmem');
    await session.setAttributes(vm, GPA, PAGE, 0n);
    expect(await runner.run()).toBe('IO');
  });

  it('carry the errno when there is no memory, and when memory has failed', async () => {
    const { session, vm } = await guarded(1);
    await session.setAttributes(vm, GPA, PAGE, PRIVATE);
    const runner = await session.runner(vm, reader(1, []));
    const { allocator } = session.host.kernel;
    allocator.fault = () => true;
    expect(await refusal(runner.run())).toMatch(/^ENOMEM/);
    expect(await runner.reason()).toBe('MEMORY_FAULT');
    allocator.fault = null;
    expect(await runner.run()).toBe('IO');
    const [file] = session.vm(vm).files.open;
    const { pfn } = await file!.guestPage(session.vm(vm).slots.get(1)!, GPA / PAGE, 0);
    expect(await session.vm(vm).files.memoryFailure(pfn)).toBe(true);
    expect(await refusal(runner.run())).toBe('EHWPOISON gmem-page-failed');
    expect(await runner.exit(KVM_RUN_EXIT.MEMORY_FAULT)).toMatchObject({ flags: 8n });
  });

  it('come where user space has nothing behind a slot', async () => {
    const session = await KvmSession.start();
    const vm = await session.createVm();
    const user = await session.sharedSlot(vm, 0, GPA, 2);
    const seen: number[][] = [];
    const runner = await session.runner(vm, reader(2, seen));
    expect(await runner.run()).toBe('IO');
    await session.task.munmap(user + PAGE, PAGE);
    expect(await refusal(runner.run())).toBe('EFAULT host-page-missing');
    expect(await runner.exit(KVM_RUN_EXIT.MEMORY_FAULT)).toMatchObject({
      flags: 0n,
      gpa: BigInt(GPA + PAGE),
    });
  });

  it('are memory errors in the design before guest_memfd, and KVM_RUN succeeds', async () => {
    const session = await KvmSession.start({ memfile: true });
    const { task } = session;
    const vm = await session.createVm(SW_PROTECTED);
    const file = task.memfdCreate('private', MFD.INACCESSIBLE);
    await task.ftruncate(file, PAGE);
    const region = {
      slot: 1,
      flags: KVM_MEM_PRIVATE,
      guest_phys_addr: BigInt(GPA),
      memory_size: BigInt(PAGE),
      userspace_addr: BigInt(await session.anonymous(1)),
    };
    const withFile = KVM_USERSPACE_MEMORY_REGION_EXT.encode({ region, private_offset: 0n, private_fd: file });
    await task.ioctl(vm, KVM.SET_USER_MEMORY_REGION, withFile);
    const runner = await session.runner(vm, reader(1, []));
    // A guest that says itself that it means private memory.
    const { backend } = session.vm(vm);
    const enter = backend.enter.bind(backend);
    backend.enter = async (vcpu) => {
      const exit = await enter(vcpu);
      return exit.kind === 'page-fault' ? { ...exit, isPrivate: true } : exit;
    };
    expect(await runner.run()).toBe('MEMORY_ERROR');
    const error = { flags: 1, gpa: BigInt(GPA), size: BigInt(PAGE) };
    expect(await runner.exit(KVM_RUN_EXIT.MEMORY_ERROR)).toMatchObject(error);
    await task.fallocate(file, 0, 0, PAGE);
    expect(await runner.run()).toBe('IO');
    await task.exit();
    expect(session.leaks().pages).toBe(0);
  });
});

describe('private and shared memory', () => {
  it('are different pages, and a hole punched in the private one reads zeroes', async () => {
    const { session, vm, user, file } = await guarded(3);
    const { task } = session;
    for (let page = 0; page < 3; page++) await task.store(user + page * PAGE, Uint8Array.of(page + 1));
    const seen: number[][] = [];
    const runner = await session.runner(vm, function* (cpu) {
      yield* reader(3, seen)(cpu);
    });
    await runner.run();
    await session.setAttributes(vm, GPA + PAGE, PAGE, PRIVATE);
    await runner.run();
    const slot = session.vm(vm).slots.get(1)!;
    const [backing] = session.vm(vm).files.open;
    const { pfn } = await backing!.guestPage(slot, GPA / PAGE + 1, 0);
    task.lp.store(pfn * PAGE, Uint8Array.of(77));
    await runner.run();
    await task.fallocate(file, HOLE, PAGE, PAGE);
    await runner.run();
    await session.setAttributes(vm, GPA, 3 * PAGE, 0n);
    await runner.run();
    expect(seen).toEqual([
      [1, 2, 3],
      [1, 0, 3],
      [1, 77, 3],
      [1, 0, 3],
      [1, 2, 3],
    ]);
  });

  it('follow what user space does to its own memory', async () => {
    const session = await KvmSession.start();
    const { task } = session;
    const vm = await session.createVm();
    const fd = task.memfdCreate('memory');
    await task.ftruncate(fd, 2 * PAGE);
    const map = () => task.mmap({ lengthBytes: 2 * PAGE, prot: READ_WRITE, flags: MAP.SHARED, fd });
    const user = await map();
    await session.setRegion(vm, {
      slot: 0,
      guest_phys_addr: BigInt(GPA),
      memory_size: BigInt(2 * PAGE),
      userspace_addr: BigInt(user),
    });
    const seen: number[][] = [];
    const runner = await session.runner(vm, reader(2, seen));
    await task.store(user, Uint8Array.of(5));
    await runner.run();
    await task.fallocate(fd, HOLE, 0, PAGE);
    await runner.run();
    const fresh = await session.anonymous(2);
    await task.store(fresh, Uint8Array.of(6));
    await task.munmap(user, 2 * PAGE);
    await task.mmap({
      address: user,
      lengthBytes: 2 * PAGE,
      prot: READ_WRITE,
      flags: MAP.PRIVATE | MAP.ANONYMOUS | MAP.FIXED,
    });
    await task.store(user + PAGE, Uint8Array.of(8));
    await runner.run();
    expect(seen).toEqual([
      [5, 0],
      [0, 0],
      [0, 8],
    ]);
  });

  it('are one page where the file can be mapped', async () => {
    const session = await KvmSession.start();
    const { task } = session;
    const vm = await session.createVm();
    const file = await session.createFile(vm, 1, 3n);
    const user = await task.mmap({ lengthBytes: PAGE, prot: READ_WRITE, flags: MAP.SHARED, fd: file });
    await session.setRegion(vm, {
      slot: 1,
      flags: KVM_MEM.GUEST_MEMFD,
      guest_phys_addr: BigInt(GPA),
      memory_size: BigInt(PAGE),
      userspace_addr: BigInt(user),
      guest_memfd: file,
    });
    await task.store(user, new Uint8Array(PAGE).fill(0xaa));
    let read = 0;
    const runner = await session.runner(vm, function* (cpu) {
      read = (yield* cpu.read(GPA + 100, 1))[0]!;
      yield* cpu.write(GPA, new Uint8Array(PAGE).fill(0xff));
    });
    expect(await runner.run()).toBe('HLT');
    expect(read).toBe(0xaa);
    expect((await task.load(user, PAGE)).every((byte) => byte === 0xff)).toBe(true);
  });
});

describe('translations', () => {
  it('survive a punched hole when the TLB flush is forgotten', async () => {
    const { session, vm, file } = await guarded(1);
    await session.setAttributes(vm, GPA, PAGE, PRIVATE);
    const seen: number[][] = [];
    const script = function* (cpu: GuestCpu): GuestFlow {
      yield* cpu.write(GPA, Uint8Array.of(0x55));
      yield* reader(1, seen)(cpu);
    };
    const runner = await session.runner(vm, script);
    await runner.run();
    session.vm(vm).flushTlbs = async () => {};
    await session.task.fallocate(file, HOLE, 0, PAGE);
    const { allocator } = session.host.kernel;
    // Whoever gets the page next is at the guest's mercy.
    const taken = Array.from({ length: 64 }, () => allocator.allocPages(0, { purpose: 'test' })!);
    for (const pfn of taken) session.task.lp.store(pfn * PAGE, Uint8Array.of(0x99));
    await runner.run();
    expect(seen[1]).toEqual([0x99]);
  });

  it('are of 2 MiB where page, slot and attributes are', async () => {
    const { session, vm } = await guarded(1024, { hugePages: true });
    await session.setAttributes(vm, GPA, 1024 * PAGE, PRIVATE);
    const maps: [gfn: number, level: number][] = [];
    const { backend } = session.vm(vm);
    const map = backend.map.bind(backend);
    backend.map = (request) => {
      maps.push([request.gfn - GPA / PAGE, request.level]);
      return map(request);
    };
    const runner = await session.runner(vm, function* (cpu) {
      yield* cpu.write(GPA + 5 * PAGE, Uint8Array.of(1));
      yield* cpu.write(GPA + 6 * PAGE, Uint8Array.of(2));
      yield* cpu.out(1, 0);
      yield* cpu.read(GPA + 600 * PAGE, 1);
      yield* cpu.read(GPA + 5 * PAGE, 1);
    });
    await runner.run();
    expect(maps.splice(0)).toEqual([[0, 1]]);
    await session.setAttributes(vm, GPA + 512 * PAGE, PAGE, 0n);
    await runner.run();
    expect(maps).toEqual([[600, 0]]);
  });

  it('are never of user memory that goes while its slot is made', async () => {
    const session = await KvmSession.start();
    const { task } = session;
    const [late, early] = [await session.createVm(), await session.createVm()];
    const user = await session.sharedSlot(early, 0, GPA, 1);
    const runner = await session.runner(late, reader(1, []));
    await (await session.runner(early, reader(1, []))).run();
    const slot = {
      slot: 0,
      guest_phys_addr: BigInt(GPA),
      memory_size: BigInt(PAGE),
      userspace_addr: BigInt(user),
    };
    // The VM without a slot has been told already when the other one is.
    const { backend } = session.vm(early);
    const zap = backend.zap.bind(backend);
    let running: Promise<string> | null = null;
    backend.zap = async (...range) => {
      running ??= session.setRegion(late, slot).then(() => refusal(runner.run()));
      await new Promise((resolve) => setImmediate(resolve));
      return zap(...range);
    };
    await task.munmap(user, PAGE);
    expect(await running).toBe('EFAULT host-page-missing');
  });

  it('are never of a page that goes while it is being mapped', async () => {
    const { session, vm, file } = await guarded(1);
    await session.setAttributes(vm, GPA, PAGE, PRIVATE);
    const { backend, slots } = session.vm(vm);
    const seen: number[][] = [];
    const runner = await session.runner(vm, reader(1, seen));
    // The hole is punched between looking the page up and mapping it.
    const backing = slots.get(1)!.backing!;
    const guestPage = backing.guestPage.bind(backing);
    let lookups = 0;
    backing.guestPage = async (...args) => {
      const page = await guestPage(...args);
      if (++lookups > 2) return page;
      session.task.lp.store(page.pfn * PAGE, Uint8Array.of(0x77));
      await session.task.thread().fallocate(file, HOLE, 0, PAGE);
      return page;
    };
    const mapped: number[] = [];
    const map = backend.map.bind(backend);
    backend.map = (request) => {
      mapped.push(request.pfn);
      return map(request);
    };
    await runner.run();
    expect(lookups).toBe(3);
    expect(mapped).toHaveLength(1);
    expect(seen).toEqual([[0]]);
  });
});

describe('a file that can be mapped, of a VM with private memory', () => {
  it('serves shared accesses too, and takes its pages from them when they go', async () => {
    const session = await KvmSession.start();
    const { task } = session;
    const vm = await session.createVm(SW_PROTECTED);
    const file = await session.createFile(vm, 1, GUEST_MEMFD_FLAG.MMAP);
    await session.setRegion(vm, {
      slot: 1,
      flags: KVM_MEM.GUEST_MEMFD,
      guest_phys_addr: BigInt(GPA),
      memory_size: BigInt(PAGE),
      userspace_addr: BigInt(await session.anonymous(1)),
      guest_memfd: file,
    });
    const seen: number[][] = [];
    const runner = await session.runner(vm, function* (cpu) {
      yield* cpu.write(GPA, Uint8Array.of(7));
      yield* reader(1, seen)(cpu);
    });
    expect(await runner.run()).toBe('IO');
    await task.fallocate(file, HOLE, 0, PAGE);
    expect(await runner.run()).toBe('IO');
    expect(seen).toEqual([[7], [0]]);
    await task.close(file);
    expect(await refusal(runner.run())).toBe('EFAULT slot-without-gmem');
  });
});
