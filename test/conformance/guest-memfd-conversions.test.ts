/** The cases of the public selftest guest_memfd_conversions_test, restated: conversion in place is on. */
import { expect } from 'vitest';
import { GIB } from '../../src/abi/address.ts';
import { DMA, DMA_DEVICE_PATH, DMA_PIN, DMA_UNPIN } from '../../src/abi/dma-device.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import {
  GUEST_MEMFD_FLAG,
  KVM_CREATE_GUEST_MEMFD,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_MEMORY_ATTRIBUTES,
  KVM_MEMORY_ATTRIBUTES2,
} from '../../src/abi/kvm/structs.ts';
import { loadDmaDevice } from '../../src/kernel/process/dma-device.ts';
import type { GuestCpu, GuestFlow } from '../../src/lab/guest/flow.ts';
import type { GuestSlot } from '../../src/vmm/vm/guest-memory.ts';
import { mapFile } from '../../src/vmm/vm/user-memory.ts';
import { hostView } from './kits/expect.ts';
import type { Kit } from './kits/kit.ts';
import { say, TestVm } from './kits/test-vm.ts';
import { faults, filled, PAGE, refused } from './session.ts';
import { conformance } from './suite.ts';

const GPA = 4 * GIB;
const PAGES = 4;
const MANY = 8;
const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;
/** What user space and the guest put into memory. */
const HOSTS = 0x11;
const GUESTS = 0x22;

interface Converting {
  readonly vm: TestVm;
  readonly slot: GuestSlot;
  /** Hears each byte that the guest reports. */
  readonly heard: number[];
}

/** A VM with one file of `pages`, mapped by user space and shown to the guest; pages begin as the flags say. */
async function start(kit: Kit, flags: bigint, pages = PAGES): Promise<Converting> {
  const vm = await TestVm.start(kit, { inPlace: true });
  const { calls, owned } = vm.vm;
  const bytes = pages * PAGE;
  const request = KVM_CREATE_GUEST_MEMFD.encode({ size: BigInt(bytes), flags });
  const fd = await calls.ioctl(vm.vm.fd, KVM.CREATE_GUEST_MEMFD, request);
  owned.add(() => calls.close(fd));
  const userAddress = await mapFile(calls, fd, bytes);
  owned.add(() => calls.munmap(userAddress, bytes));
  const id = vm.vm.slots.length;
  const slot: GuestSlot = { id, start: GPA, end: GPA + bytes, backing: 'in-place', userAddress, fd };
  await vm.setSlot(slot, {});
  vm.vm.slots.push(slot);
  return { vm, slot, heard: [] };
}

/** With pages that begin shared, for the guest too. */
async function startShared(kit: Kit, pages = PAGES): Promise<Converting> {
  const made = await start(kit, MMAP | INIT_SHARED, pages);
  if (kit.startsPrivate) await made.vm.setPrivate(made.slot, true);
  return made;
}

/** The guest's first act where pages begin shared. */
function* meetShared(vm: TestVm, cpu: GuestCpu, pages = PAGES): GuestFlow {
  yield* vm.convert(cpu, GPA, pages, false);
  yield* say(cpu, 0);
}

function* report({ heard }: Converting, cpu: GuestCpu, gpa: number): GuestFlow {
  heard.push((yield* cpu.read(gpa, 1))[0]!);
}

function page(index: number, pages = 1): { start: number; end: number } {
  return { start: GPA + index * PAGE, end: GPA + (index + pages) * PAGE };
}

function blocks({ vm, slot }: Converting): number {
  return vm.task.fstat(slot.fd!).blocks / (PAGE / 512);
}

function setAttributes2(
  { vm, slot }: Converting,
  values: Parameters<typeof KVM_MEMORY_ATTRIBUTES2.encode>[0],
): Promise<bigint> {
  const bytes = KVM_MEMORY_ATTRIBUTES2.encode({ size: BigInt(PAGE), ...values });
  return vm.task
    .ioctl(slot.fd!, KVM.SET_MEMORY_ATTRIBUTES2, bytes)
    .then(() => KVM_MEMORY_ATTRIBUTES2.decode(bytes).error_offset);
}

conformance('guest_memfd_conversions_test', {
  async init_private(kit) {
    const made = await start(kit, MMAP);
    const { vm } = made;
    vm.script(function* (cpu) {
      yield* cpu.write(GPA, filled(1, GUESTS));
      yield* say(cpu, 1);
      yield* vm.convert(cpu, GPA, 1, false);
      yield* say(cpu, 2);
      yield* report(made, cpu, GPA);
      yield* vm.convert(cpu, GPA, 1, true);
      yield* report(made, cpu, GPA);
      yield* cpu.write(GPA, filled(1, GUESTS));
      yield* report(made, cpu, GPA);
      yield* say(cpu, 3);
    });
    expect(await hostView(vm, GPA, PAGES)).toEqual(Array(PAGES).fill('SIGBUS'));
    expect(await vm.listen()).toBe(1);
    expect(await hostView(vm, GPA, PAGES)).toEqual(Array(PAGES).fill('SIGBUS'));
    expect(await vm.listen()).toBe(2);
    const [shared, ...others] = await hostView(vm, GPA, PAGES);
    expect(shared === GUESTS).toBe(kit.preserves);
    expect(others).toEqual(Array(PAGES - 1).fill('SIGBUS'));
    await vm.hostStore(GPA, filled(1, HOSTS));
    expect(await vm.listen()).toBe(3);
    const [seenShared, afterwards, own] = made.heard;
    expect([seenShared, own]).toEqual([HOSTS, GUESTS]);
    expect(afterwards === HOSTS).toBe(kit.preserves);
    expect(await hostView(vm, GPA, 1)).toEqual(['SIGBUS']);
    await faults(vm.hostStore(GPA, filled(1, HOSTS)), 'SIGBUS');
    await vm.end();
  },

  async init_shared(kit) {
    const made = await startShared(kit);
    const { vm } = made;
    vm.script(function* (cpu) {
      yield* meetShared(vm, cpu);
      yield* report(made, cpu, GPA);
      yield* cpu.write(GPA, filled(1, GUESTS));
      yield* say(cpu, 1);
      yield* vm.convert(cpu, GPA, 1, true);
      yield* report(made, cpu, GPA);
      yield* say(cpu, 2);
      yield* vm.convert(cpu, GPA, 1, false);
      yield* cpu.write(GPA, filled(1, GUESTS + 1));
      yield* say(cpu, 3);
    });
    expect(await vm.listen()).toBe(0);
    await vm.hostStore(GPA, filled(1, HOSTS));
    expect(await vm.listen()).toBe(1);
    expect(await hostView(vm, GPA, 1)).toEqual([GUESTS]);
    expect(await vm.listen()).toBe(2);
    const [seenShared, afterwards] = made.heard;
    expect(seenShared).toBe(HOSTS);
    expect(afterwards === GUESTS).toBe(kit.preserves);
    expect(await hostView(vm, GPA, 2)).toEqual(['SIGBUS', expect.any(Number)]);
    expect(await vm.listen()).toBe(3);
    expect(await hostView(vm, GPA, 1)).toEqual([GUESTS + 1]);
    await vm.end();
  },

  async indexing(kit) {
    const made = await startShared(kit);
    const { vm } = made;
    vm.script(function* (cpu) {
      yield* meetShared(vm, cpu);
      for (let i = 0; i < PAGES; i++) {
        yield* vm.convert(cpu, GPA + i * PAGE, 1, true);
        yield* cpu.write(GPA + i * PAGE, filled(1, GUESTS + i));
        for (let other = 0; other < PAGES; other++) yield* report(made, cpu, GPA + other * PAGE);
        yield* say(cpu, 1);
        yield* vm.convert(cpu, GPA + i * PAGE, 1, false);
        yield* cpu.write(GPA + i * PAGE, filled(1, HOSTS + i));
        yield* say(cpu, 2);
      }
    });
    expect(await vm.listen()).toBe(0);
    for (let i = 0; i < PAGES; i++) await vm.hostStore(GPA + i * PAGE, filled(1, HOSTS + i));
    const all = Array.from({ length: PAGES }, (_, i) => HOSTS + i);
    for (let i = 0; i < PAGES; i++) {
      expect(await vm.listen()).toBe(1);
      expect(await hostView(vm, GPA, PAGES)).toEqual(all.with(i, 0).map((byte) => byte || 'SIGBUS'));
      expect(made.heard.splice(0)).toEqual(all.with(i, GUESTS + i));
      expect(await vm.listen()).toBe(2);
      expect(await hostView(vm, GPA, PAGES)).toEqual(all);
    }
    await vm.end();
  },

  async before_allocation_shared(kit) {
    const made = await start(kit, MMAP);
    const { vm } = made;
    await vm.setPrivate(page(1), false);
    expect(blocks(made)).toBe(0);
    expect(await hostView(vm, GPA, PAGES)).toEqual(['SIGBUS', 0, 'SIGBUS', 'SIGBUS']);
    expect(blocks(made)).toBe(1);
    await vm.hostStore(GPA + PAGE, filled(PAGE, HOSTS));
    expect(await hostView(vm, GPA + PAGE, 1)).toEqual([HOSTS]);
    await vm.end();
  },

  async before_allocation_private(kit) {
    const made = await start(kit, MMAP | INIT_SHARED);
    const { vm } = made;
    vm.script(function* (cpu) {
      yield* report(made, cpu, GPA + PAGE);
      yield* cpu.write(GPA + PAGE, filled(1, GUESTS));
      yield* report(made, cpu, GPA + PAGE);
      yield* say(cpu, 1);
    });
    await vm.setPrivate(page(1), true);
    expect(blocks(made)).toBe(0);
    expect(await hostView(vm, GPA, PAGES)).toEqual([0, 'SIGBUS', 0, 0]);
    expect(blocks(made)).toBe(PAGES - 1);
    expect(await vm.listen()).toBe(1);
    expect(made.heard).toEqual([0, GUESTS]);
    expect(blocks(made)).toBe(PAGES);
    await vm.end();
  },

  async unallocated_folios(kit) {
    const made = await start(kit, MMAP | INIT_SHARED, MANY);
    const { vm } = made;
    for (let i = 0; i < MANY; i += 2) await vm.hostStore(GPA + i * PAGE, filled(1, HOSTS));
    await vm.setPrivate(page(0, MANY), true);
    expect(await hostView(vm, GPA, MANY)).toEqual(Array(MANY).fill('SIGBUS'));
    expect(blocks(made)).toBe(MANY / 2);
    await vm.setPrivate(page(0, MANY), false);
    expect(blocks(made)).toBe(MANY / 2);
    expect(await hostView(vm, GPA, MANY)).toEqual(
      Array.from({ length: MANY }, (_, i) => (i % 2 === 0 ? HOSTS : 0)),
    );
    expect(blocks(made)).toBe(MANY);
    await vm.end();
  },

  async truncate(kit) {
    const made = await start(kit, MMAP | INIT_SHARED);
    const { vm } = made;
    for (let i = 0; i < PAGES; i++) await vm.hostStore(GPA + i * PAGE, filled(1, HOSTS));
    await vm.setPrivate(page(1, 2), true);
    expect(await hostView(vm, GPA, PAGES)).toEqual([HOSTS, 'SIGBUS', 'SIGBUS', HOSTS]);
    await vm.allocate(page(0, 2), true);
    expect(blocks(made)).toBe(PAGES - 2);
    expect(await hostView(vm, GPA, PAGES)).toEqual([0, 'SIGBUS', 'SIGBUS', HOSTS]);
    await vm.setPrivate(page(1), false);
    expect(await hostView(vm, GPA, PAGES)).toEqual([0, 0, 'SIGBUS', HOSTS]);
    await vm.end();
  },

  async forked_accesses(kit) {
    const made = await start(kit, MMAP | INIT_SHARED);
    const { vm, slot } = made;
    await vm.hostStore(GPA, filled(1, HOSTS));
    const child = await vm.task.process.fork(1);
    const at = slot.userAddress;
    expect(await child.load(at, 1)).toEqual(filled(1, HOSTS));
    await child.store(at, filled(1, HOSTS + 1));
    expect(await hostView(vm, GPA, 1)).toEqual([HOSTS + 1]);
    await vm.setPrivate(page(0), true);
    for (const task of [child, vm.task]) {
      await faults(task.load(at, 1), 'SIGBUS');
      await faults(task.store(at, filled(1, 0)), 'SIGBUS');
    }
    await vm.setPrivate(page(0), false);
    expect(await child.load(at, 1)).toEqual(filled(1, HOSTS + 1));
    await child.exit();
    await vm.end();
  },

  async elevated_references(kit) {
    const made = await start(kit, MMAP | INIT_SHARED);
    const { vm, slot } = made;
    const { task } = vm;
    loadDmaDevice(vm.side.host.kernel);
    const device = await task.open(DMA_DEVICE_PATH);
    await vm.hostStore(GPA, filled(PAGES * PAGE, HOSTS));
    const pin = DMA_PIN.encode({ address: BigInt(slot.userAddress + 2 * PAGE), length: BigInt(PAGE) });
    await task.ioctl(device, DMA.PIN, pin);
    const bytes = KVM_MEMORY_ATTRIBUTES2.encode({
      size: BigInt(PAGES * PAGE),
      attributes: KVM_MEMORY_ATTRIBUTE_PRIVATE,
    });
    await refused(task.ioctl(slot.fd!, KVM.SET_MEMORY_ATTRIBUTES2, bytes), 'EAGAIN');
    expect(KVM_MEMORY_ATTRIBUTES2.decode(bytes).error_offset).toBe(BigInt(2 * PAGE));
    expect(await hostView(vm, GPA, PAGES)).toEqual(Array(PAGES).fill(HOSTS));
    await vm.setPrivate(page(0, 2), true);
    await task.ioctl(device, DMA.UNPIN, DMA_UNPIN.encode({ handle: DMA_PIN.decode(pin).handle }));
    await vm.setPrivate(page(0, PAGES), true);
    expect(await hostView(vm, GPA, PAGES)).toEqual(Array(PAGES).fill('SIGBUS'));
    await task.close(device);
    await vm.end();
  },

  async misuse(kit) {
    const made = await start(kit, MMAP | INIT_SHARED);
    const { vm } = made;
    for (let bit = 0n; bit < 64n; bit++) {
      await refused(setAttributes2(made, { flags: 1n << bit }), 'EINVAL');
      if (1n << bit === KVM_MEMORY_ATTRIBUTE_PRIVATE) continue;
      await refused(setAttributes2(made, { attributes: 1n << bit }), 'EINVAL');
    }
    for (let word = 0; word < 11; word++) {
      const reserved = Array.from({ length: 11 }, (_, i) => (i === word ? 1n : 0n));
      await refused(setAttributes2(made, { reserved }), 'EINVAL');
    }
    await refused(setAttributes2(made, { size: 0n }), 'EINVAL');
    await refused(setAttributes2(made, { size: 1n }), 'EINVAL');
    await refused(setAttributes2(made, { offset: 1n }), 'EINVAL');
    await refused(setAttributes2(made, { offset: -4096n }), 'EINVAL');
    await refused(setAttributes2(made, { offset: BigInt(PAGES * PAGE) }), 'EINVAL');
    await refused(setAttributes2(made, { size: BigInt((PAGES + 1) * PAGE) }), 'EINVAL');
    expect(await setAttributes2(made, { attributes: KVM_MEMORY_ATTRIBUTE_PRIVATE })).toBe(0n);
    const ofVm = KVM_MEMORY_ATTRIBUTES.encode({ address: BigInt(GPA), size: BigInt(PAGE) });
    await refused(vm.task.ioctl(vm.vm.fd, KVM.SET_MEMORY_ATTRIBUTES, ofVm), 'ENOTTY');
    await vm.end();
  },
});
