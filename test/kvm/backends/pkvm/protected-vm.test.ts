/** The life of a protected VM, by ioctls. */
import { describe, expect, it } from 'vitest';
import { KVM_EXIT_IO, KVM_RUN_EXIT } from '../../../../src/abi/kvm/exits.ts';
import { KVM } from '../../../../src/abi/kvm/ioctl.ts';
import {
  GUEST_MEMFD_FLAG,
  KVM_MEM,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_MEMORY_ATTRIBUTES2,
} from '../../../../src/abi/kvm/structs.ts';
import { KVM_VM_TYPE } from '../../../../src/abi/kvm/vm-types.ts';
import { SMCCC } from '../../../../src/abi/pkvm.ts';
import { FALLOC_FL, MAP } from '../../../../src/abi/system-call-flags.ts';
import type { PkvmHypervisor } from '../../../../src/hypervisor/pkvm-hypervisor.ts';
import type { GuestScript } from '../../../../src/lab/guest/flow.ts';
import { guardMmio, hvc, sharePages, unsharePages } from '../../../../src/lab/guest/pkvm-guest.ts';
import { KvmSession, PAGE, READ_WRITE } from '../../kvm-session.ts';

const BASE = 0x4000_0000;
const PAGES = 8;
const TEXT = new TextEncoder();
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** A protected VM whose memory is one file, converted in place; the file mapped as far as it is shared. */
async function protectedVm(script: GuestScript, initial = 'a kernel image') {
  const session = await KvmSession.start({ inPlaceConversion: true }, false, { hypervisor: 'pkvm' });
  const { task } = session;
  const vm = await session.createVm(KVM_VM_TYPE.ARM_PROTECTED);
  const file = await session.createFile(vm, PAGES, GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED);
  const memory = await task.mmap({
    lengthBytes: PAGES * PAGE,
    prot: READ_WRITE,
    flags: MAP.SHARED,
    fd: file,
  });
  await session.setRegion(vm, {
    slot: 0,
    flags: KVM_MEM.GUEST_MEMFD,
    guest_phys_addr: BigInt(BASE),
    memory_size: BigInt(PAGES * PAGE),
    userspace_addr: BigInt(memory),
    guest_memfd: file,
  });
  await task.store(memory, TEXT.encode(initial));
  await convert(session, file, 0, PAGES, true);
  const runner = await session.runner(vm, script);
  const hypervisor = session.host.machine.hypervisor as PkvmHypervisor;
  return { session, task, vm, file, memory, runner, hypervisor };
}

function convert(session: KvmSession, file: number, index: number, pages: number, isPrivate: boolean) {
  const request = {
    offset: BigInt(index * PAGE),
    size: BigInt(pages * PAGE),
    attributes: isPrivate ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n,
  };
  return session.task.ioctl(file, KVM.SET_MEMORY_ATTRIBUTES2, KVM_MEMORY_ATTRIBUTES2.encode(request));
}

describe('a protected VM', () => {
  it('gets the contents that user space put there, in place, and user space loses them', async () => {
    let image = '';
    const { session, task, memory, runner, hypervisor } = await protectedVm(function* (cpu) {
      image = text(yield* cpu.read(BASE, 14));
      yield* cpu.write(BASE, TEXT.encode('a guest secret'));
    });
    await expect(task.load(memory, 4)).rejects.toThrow(/SIGBUS/);
    expect(await runner.run()).toBe('HLT');
    expect(image).toBe('a kernel image');
    await expect(task.load(memory, 4)).rejects.toThrow(/SIGBUS/);
    const [vm] = [...hypervisor.table.vms()];
    const { pfn } = vm!.stage2.leaf(BASE / PAGE);
    expect(() => session.host.machine.lps[0]!.load(pfn * PAGE, 1)).toThrow(/stage 2/);
  });

  it('shares pages in place, both ways, and takes them back with what they hold', async () => {
    const statuses: number[] = [];
    let back = '';
    const { task, memory, runner } = await protectedVm(function* (cpu) {
      yield* cpu.write(BASE + PAGE, TEXT.encode('for the host'));
      statuses.push(yield* sharePages(cpu, BASE + PAGE));
      yield* cpu.hlt();
      back = text(yield* cpu.read(BASE + PAGE, 13));
      statuses.push(yield* unsharePages(cpu, BASE + PAGE));
      yield* cpu.write(BASE + PAGE, TEXT.encode('hidden again'));
    });
    expect(await runner.run()).toBe('HLT');
    expect(text(await task.load(memory + PAGE, 12))).toBe('for the host');
    await task.store(memory + PAGE, TEXT.encode('for the guest'));
    expect(await runner.run()).toBe('HLT');
    expect(back).toBe('for the guest');
    expect(statuses).toEqual([SMCCC.success, SMCCC.success]);
    await expect(task.load(memory + PAGE, 4)).rejects.toThrow(/SIGBUS/);
  });

  it('maps a page that it shares before it ever touched it', async () => {
    let status = -1;
    const { task, memory, runner } = await protectedVm(function* (cpu) {
      status = yield* sharePages(cpu, BASE + 5 * PAGE);
    });
    expect(await runner.run()).toBe('HLT');
    expect(status).toBe(SMCCC.success);
    expect(await task.load(memory + 5 * PAGE, 1)).toEqual(Uint8Array.of(0));
  });

  it('cannot unshare while a device holds the page, and can when it lets go', async () => {
    const statuses: number[] = [];
    const { session, task, memory, runner } = await protectedVm(function* (cpu) {
      yield* sharePages(cpu, BASE);
      yield* cpu.hlt();
      statuses.push(yield* unsharePages(cpu, BASE));
      yield* cpu.hlt();
      statuses.push(yield* unsharePages(cpu, BASE));
    });
    await runner.run();
    const { pageRefs } = session.host.kernel;
    await task.load(memory, 1);
    const pfn = task.process.memory.pfnAt(memory / PAGE)!;
    pageRefs.get(pfn);
    await runner.run();
    expect(statuses).toEqual([SMCCC.invalidParameter]);
    expect(text(await task.load(memory, 14))).toBe('a kernel image');
    pageRefs.put(pfn);
    await runner.run();
    expect(statuses).toEqual([SMCCC.invalidParameter, SMCCC.success]);
    await expect(task.load(memory, 1)).rejects.toThrow(/SIGBUS/);
  });

  it('exits where its memory is shared though it never shared it: user space has to convert first', async () => {
    const { session, file, runner } = await protectedVm(function* (cpu) {
      yield* cpu.write(BASE + 3 * PAGE, Uint8Array.of(1));
    });
    await convert(session, file, 3, 1, false);
    await expect(runner.run()).rejects.toMatchObject({ errno: 'EFAULT' });
    expect(await runner.reason()).toBe('MEMORY_FAULT');
    const { gpa, flags } = await runner.exit(KVM_RUN_EXIT.MEMORY_FAULT);
    expect([gpa, flags]).toEqual([BigInt(BASE + 3 * PAGE), 8n]);
    await convert(session, file, 3, 1, true);
    expect(await runner.run()).toBe('HLT');
  });

  it('loses a page that user space takes, which comes wiped; the guest faults from then on', async () => {
    const { session, task, memory, file, runner } = await protectedVm(function* (cpu) {
      yield* cpu.write(BASE, TEXT.encode('a guest secret'));
      yield* cpu.hlt();
      yield* cpu.read(BASE, 1);
    });
    await runner.run();
    await convert(session, file, 0, 1, false);
    expect(await task.load(memory, 14)).toEqual(new Uint8Array(14));
    await convert(session, file, 0, 1, true);
    await expect(runner.run()).rejects.toMatchObject({
      errno: 'EFAULT',
      reason: { code: 'pkvm-page-taken' },
    });
  });

  it('loses shared and private pages alike to a hole', async () => {
    const { task, file, runner, hypervisor } = await protectedVm(function* (cpu) {
      yield* cpu.write(BASE, Uint8Array.of(1));
      yield* sharePages(cpu, BASE + PAGE);
      yield* cpu.hlt();
      yield* cpu.read(BASE + PAGE, 1);
    });
    await runner.run();
    await task.fallocate(file, FALLOC_FL.PUNCH_HOLE | FALLOC_FL.KEEP_SIZE, 0, PAGES * PAGE);
    const [vm] = [...hypervisor.table.vms()];
    expect([...vm!.stage2.leaves()]).toEqual([]);
    await expect(runner.run()).rejects.toMatchObject({ errno: 'EFAULT' });
  });

  it('shows accesses to devices only where it says that there are some', async () => {
    const device = 0x3000_0000;
    let answer = 0;
    const { task, runner } = await protectedVm(function* (cpu) {
      expect(yield* guardMmio(cpu, device)).toBe(SMCCC.success);
      yield* cpu.write(device, Uint8Array.of(1, 2, 3, 4));
      [answer = 0] = yield* cpu.read(device + 8, 1);
      yield* cpu.read(device + PAGE, 1);
    });
    expect(await runner.run()).toBe('MMIO');
    const write = await runner.exit(KVM_RUN_EXIT.MMIO);
    expect(write).toMatchObject({ phys_addr: BigInt(device), len: 4, is_write: 1 });
    expect([...write.data.subarray(0, 4)]).toEqual([1, 2, 3, 4]);
    expect(await runner.run()).toBe('MMIO');
    await runner.answer(KVM_RUN_EXIT.MMIO.offsets.data, Uint8Array.of(0x42));
    await expect(runner.run()).rejects.toMatchObject({ errno: 'EFAULT' });
    expect(answer).toBe(0x42);
    expect(await runner.reason()).toBe('MEMORY_FAULT');
    await task.exit();
  });

  it('does port output with its registers hidden', async () => {
    const { runner } = await protectedVm(function* (cpu) {
      yield* cpu.technology('hvc', 4, { rax: 0n, rsi: 0x5ec2e7n });
      yield* cpu.out(0x50, 7);
    });
    expect(await runner.run()).toBe('IO');
    expect(await runner.exit(KVM_RUN_EXIT.IO)).toMatchObject({ direction: KVM_EXIT_IO.OUT, port: 0x50 });
    expect([...runner.vcpu.regs.q]).not.toContain(0x5ec2e7n);
  });

  it('gets NOT_SUPPORTED for calls that nobody knows', async () => {
    let status = 0;
    const { runner } = await protectedVm(function* (cpu) {
      status = yield* hvc(cpu, 0x8400_0999);
    });
    await runner.run();
    expect(status).toBe(SMCCC.notSupported);
  });

  it('gets no vCPU once it has run', async () => {
    const { session, vm, runner } = await protectedVm(function* () {});
    await runner.run();
    await expect(session.createVcpu(vm, 1)).rejects.toMatchObject({ errno: 'EBUSY' });
  });

  const orders: readonly (readonly string[])[] = [
    ['vcpu', 'vm', 'file'],
    ['file', 'vm', 'vcpu'],
    ['vm', 'file', 'vcpu'],
    ['file', 'vcpu', 'vm'],
  ];
  it.each(orders)('leaves nothing behind when %s, %s and %s are closed in this order', async (...order) => {
    const { session, task, vm, file, memory, runner, hypervisor } = await protectedVm(function* (cpu) {
      yield* cpu.write(BASE, Uint8Array.of(1));
      yield* sharePages(cpu, BASE + PAGE, 2);
    });
    await runner.run();
    await task.load(memory + PAGE, 1);
    await task.munmap(memory, PAGES * PAGE);
    await task.munmap(runner.page, await task.ioctl(session.kvm, KVM.GET_VCPU_MMAP_SIZE));
    const fds: Readonly<Record<string, number>> = { vcpu: runner.fd, vm, file };
    for (const name of order) await task.close(fds[name]!);
    expect(hypervisor.table.size).toBe(0);
    expect([...hypervisor.ownership.states.touched()]).toEqual([]);
    expect(session.leaks()).toEqual({ pages: 0, objects: 0 });
  });

  it('leaves nothing behind when its process ends, before or after it ran', async () => {
    for (const runs of [0, 1]) {
      const { session, task, runner, hypervisor } = await protectedVm(function* (cpu) {
        yield* cpu.write(BASE, Uint8Array.of(1));
      });
      for (let i = 0; i < runs; i++) await runner.run();
      await task.exit();
      expect(hypervisor.table.size).toBe(0);
      expect([...hypervisor.ownership.states.touched()]).toEqual([]);
      expect(session.leaks().pages).toBe(0);
    }
  });
});

describe('a VM of the default type on a host with pKVM', () => {
  it('borrows memory that user space goes on using', async () => {
    const session = await KvmSession.start({}, false, { hypervisor: 'pkvm' });
    const { task } = session;
    const vm = await session.createVm();
    const memory = await session.sharedSlot(vm, 0, 0x10_0000, 4);
    await task.store(memory, TEXT.encode('from the host'));
    let read = '';
    const runner = await session.runner(vm, function* (cpu) {
      read = text(yield* cpu.read(0x10_0000, 13));
      yield* cpu.write(0x10_0000, TEXT.encode('from the guest'));
      yield* cpu.write(0x20_0000, Uint8Array.of(5));
    });
    expect(await runner.run()).toBe('MMIO');
    expect(read).toBe('from the host');
    expect(text(await task.load(memory, 14))).toBe('from the guest');
    expect(await runner.run()).toBe('HLT');
    await task.exit();
    expect(session.leaks().pages).toBe(0);
    const { ownership } = session.host.machine.hypervisor as PkvmHypervisor;
    expect([...ownership.states.touched()]).toEqual([]);
  });
});

describe('a host without the hypervisor', () => {
  it('has no protected VMs, and says why', async () => {
    const session = await KvmSession.start();
    await expect(session.createVm(KVM_VM_TYPE.ARM_PROTECTED)).rejects.toMatchObject({
      errno: 'EINVAL',
      message: expect.stringContaining('no pKVM hypervisor'),
    });
  });
});
