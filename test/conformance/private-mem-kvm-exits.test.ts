/** The cases of the public selftest private_mem_kvm_exits_test, restated. */
import { exploreSeeds } from '../../src/lab/schedule/explore.ts';
import { expectMemoryFault } from './kits/expect.ts';
import { say, TestVm } from './kits/test-vm.ts';
import { PAGE } from './session.ts';
import { conformance } from './suite.ts';

const GPA = 0xc000_0000;
/** Reads between two interrupts of the host. */
const PREEMPTED_AFTER = 4;

conformance('private_mem_kvm_exits_test', {
  P1: (kit) =>
    exploreSeeds(6, async (scheduler) => {
      const vm = await TestVm.start(kit);
      const slot = await vm.addSlot(GPA, 1);
      await vm.setPrivate(slot, true);
      vm.script(function* (cpu) {
        yield* cpu.write(GPA, Uint8Array.of(1));
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
    }),

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
