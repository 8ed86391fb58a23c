/** The cases of the public selftest set_memory_region_test that have a guest, restated. */
import { expect } from 'vitest';
import { KVM_X86_QUIRK } from '../../src/abi/kvm/capabilities.ts';
import { KVM_INTERNAL_ERROR, KVM_RUN_EXIT } from '../../src/abi/kvm/exits.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_VM_TYPE } from '../../src/abi/kvm/vm-types.ts';
import { exploreSeeds } from '../../src/lab/schedule/explore.ts';
import type { Scheduler } from '../../src/lab/schedule/scheduler.ts';
import type { GuestSlot } from '../../src/vmm/vm/guest-memory.ts';
import { addVcpu, exitName, readExit, writeUnion } from '../../src/vmm/vm/guest-vcpu.ts';
import { GuestVm } from '../../src/vmm/vm/guest-vm.ts';
import type { Kit } from './kits/kit.ts';
import { SHARED_WINDOW, say, TestVm } from './kits/test-vm.ts';
import { filled, PAGE, refused } from './session.ts';
import { conformance } from './suite.ts';

const GPA = SHARED_WINDOW.start + 16 * PAGE;
const NOWHERE = SHARED_WINDOW.start + 0xe0;
/** What the slot's memory holds, and what user space answers where there is none. */
const MEMORY = 0x01;
const HOLE = 0xee;
const READS = 24;
const PREEMPTED_AFTER = 2;

/**
 * The guest reads while user space does something with the slot, in the order of one schedule. Returns what it read:
 * always one or the other.
 */
async function readMeanwhile(
  kit: Kit,
  scheduler: Scheduler,
  work: (vm: TestVm, slot: GuestSlot) => Promise<void>,
): Promise<ReadonlySet<number>> {
  const vm = await TestVm.start(kit);
  const slot = await vm.addSlot(GPA, 2, 'anonymous');
  await vm.task.store(slot.userAddress, filled(2 * PAGE, MEMORY));
  const seen = new Set<number>();
  vm.script(function* (cpu) {
    // From here on there is a mapping, which must go with the slot.
    yield* cpu.read(GPA, 8);
    yield* say(cpu, 1);
    for (let i = 0; i < READS; i++) for (const byte of yield* cpu.read(GPA, 8)) seen.add(byte);
    yield* say(cpu, 2);
  });
  await vm.listen();
  vm.side.kvmHost.guests.budget = PREEMPTED_AFTER;
  vm.side.host.kernel.schedule = scheduler.point;
  scheduler.start('vcpu', () => answerHoles(vm));
  scheduler.start('user', () => work(vm, slot));
  await scheduler.run();
  await vm.end();
  for (const byte of seen) expect([MEMORY, HOLE]).toContain(byte);
  return seen;
}

/** Runs to the guest's last word, answering what it reads where no memory is. */
async function answerHoles(vm: TestVm): Promise<void> {
  const task = vm.task.process.thread(1);
  for (;;) {
    const exit = await vm.run(0, task);
    if (exit.name === 'IO') return;
    expect([exit.name, exit.errno]).toEqual(['MMIO', null]);
    const { phys_addr, len, is_write } = KVM_RUN_EXIT.MMIO.decode(exit.union);
    expect([phys_addr, len, is_write]).toEqual([BigInt(GPA), 8, 0]);
    KVM_RUN_EXIT.MMIO.patch(exit.union, { data: filled(8, HOLE) });
    await writeUnion({ calls: task }, vm.vm.vcpus[0]!, exit.union);
  }
}

/** Over many orders of turns the guest must have met both. */
async function inManyOrders(kit: Kit, work: (vm: TestVm, slot: GuestSlot) => Promise<void>): Promise<void> {
  const seen = new Set<number>();
  await exploreSeeds(20, async (scheduler) => {
    for (const byte of await readMeanwhile(kit, scheduler, work)) seen.add(byte);
  });
  expect([...seen].sort()).toEqual([MEMORY, HOLE]);
}

conformance('set_memory_region_test, guest', {
  async S5(kit) {
    const { session, expectBalanced } = await kit.subject.start();
    const { calls } = session;
    const vm = await GuestVm.build(calls, kit.vmType, async (made) => {
      await addVcpu(made);
    });
    await calls.ioctl(vm.vcpus[0]!.fd, KVM.RUN);
    const { reason, union } = await readExit(vm, vm.vcpus[0]!);
    expect(exitName(reason)).toBe('INTERNAL_ERROR');
    expect(KVM_RUN_EXIT.INTERNAL_ERROR.decode(union).suberror).toBe(KVM_INTERNAL_ERROR.EMULATION);
    await vm.close();
    await expectBalanced();
  },

  async S6(kit) {
    const vm = await TestVm.start(kit);
    vm.script(function* (cpu) {
      yield* cpu.deliverThrough(NOWHERE);
    });
    const { name, errno, union } = await vm.run();
    expect([name, errno]).toEqual(['INTERNAL_ERROR', null]);
    const { suberror, ndata, data } = KVM_RUN_EXIT.INTERNAL_ERROR.decode(union);
    expect([suberror, data[3]]).toEqual([KVM_INTERNAL_ERROR.DELIVERY_EV, BigInt(NOWHERE)]);
    expect(ndata).toBeGreaterThan(3);
    await vm.end();
  },

  S7: (kit) =>
    inManyOrders(kit, async (vm, slot) => {
      for (const gpa of [GPA - PAGE, GPA, GPA - 2 * PAGE, GPA]) {
        await vm.setSlot(slot, { guest_phys_addr: BigInt(gpa) });
      }
    }),

  async S8(kit) {
    await inManyOrders(kit, async (vm, slot) => {
      for (let i = 0; i < 3; i++) {
        await vm.deleteSlot(slot);
        await vm.setSlot(slot, {});
      }
    });
  },

  async quirk(kit) {
    for (const isDisabled of [false, true]) {
      const vm = await TestVm.start(kit);
      await refused(vm.vm.enable('DISABLE_QUIRKS2', 1n << 40n), 'EINVAL');
      if (isDisabled) await vm.vm.enable('DISABLE_QUIRKS2', BigInt(KVM_X86_QUIRK.SLOT_ZAP_ALL));
      const [slot] = [await vm.addSlot(GPA, 1, 'anonymous'), await vm.addSlot(GPA + PAGE, 1, 'anonymous')];
      vm.script(function* (cpu) {
        yield* cpu.read(GPA, 1);
        yield* cpu.read(GPA + PAGE, 1);
        yield* say(cpu, 1);
        yield* cpu.read(GPA + PAGE, 1);
        yield* say(cpu, 2);
      });
      expect(await vm.listen()).toBe(1);
      const isMapped = (gpa: number): boolean => vm.record.backend.isMapped(gpa / PAGE, false);
      expect([isMapped(GPA), isMapped(GPA + PAGE)]).toEqual([true, true]);
      await vm.deleteSlot(slot);
      const isKept = isDisabled || kit.vmType !== KVM_VM_TYPE.DEFAULT;
      expect([isMapped(GPA), isMapped(GPA + PAGE)]).toEqual([false, isKept]);
      expect(await vm.listen()).toBe(2);
      await vm.end();
    }
  },
});
