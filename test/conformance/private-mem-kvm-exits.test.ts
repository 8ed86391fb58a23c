/** The cases of the public selftest private_mem_kvm_exits_test, restated. */
import { exploreSeeds } from '../../src/lab/schedule/explore.ts';
import type { Scheduler } from '../../src/lab/schedule/scheduler.ts';
import { expectMemoryFault } from './kits/expect.ts';
import type { Kit } from './kits/kit.ts';
import { say, TestVm } from './kits/test-vm.ts';
import { PAGE } from './session.ts';
import { conformance } from './suite.ts';

const GPA = 0xc000_0000;
/** Reads between two interrupts of the host. */
const PREEMPTED_AFTER = 4;

/** The guest reads a private page, mapped before or not, while user space deletes its slot. */
async function deleteMeanwhile(kit: Kit, scheduler: Scheduler, isMapped: boolean): Promise<void> {
  const vm = await TestVm.start(kit);
  const slot = await vm.addSlot(GPA, 1);
  await vm.setPrivate(slot, true);
  vm.script(function* (cpu) {
    if (isMapped) yield* cpu.write(GPA, Uint8Array.of(1));
    yield* say(cpu, 1);
    for (;;) yield* cpu.read(GPA, 8);
  });
  await vm.listen();
  vm.side.kvmHost.guests.budget = PREEMPTED_AFTER;
  vm.side.host.kernel.schedule = scheduler.point;
  const running = scheduler.start('vcpu', () => vm.run(0, vm.task.process.thread(1)));
  scheduler.start('user', () => vm.deleteSlot(slot));
  await scheduler.run();
  expectMemoryFault(await running, GPA, true);
  await vm.end();
}

conformance('private_mem_kvm_exits_test', {
  async P1(kit) {
    await exploreSeeds(6, (scheduler) => deleteMeanwhile(kit, scheduler, true));
    await exploreSeeds(12, (scheduler) => deleteMeanwhile(kit, scheduler, false));
  },

  async P2(kit) {
    const vm = await TestVm.start(kit);
    const slot = await vm.addSlot(GPA, 1, 'anonymous');
    // Where a file has the attributes, there is none to set.
    if (!vm.isInPlace) await vm.setPrivate(slot, true);
    vm.script(function* (cpu) {
      yield* cpu.read(GPA + PAGE - 8, 8);
    });
    expectMemoryFault(await vm.runConverting(), GPA, true);
    await vm.end();
  },
});
