/** The case of the public selftest guest_memfd_test that has a guest, restated. */
import { expect } from 'vitest';
import { GIB } from '../../src/abi/address.ts';
import { say, TestVm } from './kits/test-vm.ts';
import { expectFilled, filled, PAGE } from './session.ts';
import { conformance } from './suite.ts';

const GPA = 4 * GIB;
const PAGES = 4;
const SIZE = PAGES * PAGE;

conformance('guest_memfd_test, guest', {
  async T16(kit) {
    const vm = await TestVm.start(kit, { inPlace: kit.backing === 'split' });
    const slot = await vm.addSlot(GPA, PAGES, 'in-place');
    let seen = new Uint8Array();
    vm.script(function* (cpu) {
      yield* vm.convert(cpu, GPA, PAGES, false);
      yield* say(cpu, 1);
      seen = (yield* cpu.read(GPA, SIZE)).slice();
      yield* cpu.write(GPA, filled(SIZE, 0xff));
      yield* say(cpu, 2);
    });
    expect(await vm.listen()).toBe(1);
    await vm.task.store(slot.userAddress, filled(SIZE, 0xaa));
    expect(await vm.listen()).toBe(2);
    expect(seen.length).toBe(SIZE);
    expectFilled(seen, 0xaa);
    expectFilled(await vm.task.load(slot.userAddress, SIZE), 0xff);
    await vm.end();
  },
});
