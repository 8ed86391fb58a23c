/** The cases of the posted TDX selftests that are about a TD's memory, restated. */
import { expect } from 'vitest';
import { GIB, PAGE_2M } from '../../src/abi/address.ts';
import { TDG } from '../../src/abi/leaves.ts';
import { RAX } from '../../src/abi/registers.ts';
import { EXIT } from '../../src/abi/vm-exit.ts';
import type { GuestCpu, GuestFlow } from '../../src/lab/guest/flow.ts';
import { expectMemoryFault, hostView } from './kits/expect.ts';
import { say, TestVm, UCALL_PORT } from './kits/test-vm.ts';
import { filled, PAGE } from './session.ts';
import { conformance } from './suite.ts';

const GPA = 4 * GIB;
const ALIAS = 2 ** 47;
const MAP_GPA = 0x1_0001n;
/** Pages before and behind those that are converted. */
const GUARD = 2;
const MIDDLE = 8;
const PAGES = MIDDLE + 2 * GUARD;
const P1 = 0x11;
const P2 = 0x22;
const P3 = 0x33;

/** `say`, for a guest that has no #VE handler. */
function* tell(cpu: GuestCpu, value: number): GuestFlow {
  yield* cpu.vmcall(BigInt(EXIT.IO), 4n, 1n, BigInt(UCALL_PORT), BigInt(value));
}

conformance('tdx_memory_tests', {
  async shared_mem(kit) {
    const vm = await TestVm.start(kit);
    await vm.addSlot(GPA, 1);
    let seen: Uint8Array = new Uint8Array();
    vm.script(function* (cpu) {
      yield* vm.convert(cpu, GPA, 1, false);
      yield* cpu.write(GPA, filled(4, P1));
      yield* say(cpu, 1);
      seen = (yield* cpu.read(GPA, 4)).slice();
      yield* say(cpu, 2);
    });
    expect(await vm.listen()).toBe(1);
    expect(await vm.hostLoad(GPA, 4)).toEqual(filled(4, P1));
    await vm.hostStore(GPA, filled(4, P2));
    expect(await vm.listen()).toBe(2);
    expect(seen).toEqual(filled(4, P2));
    await vm.end();
  },

  async upm(kit) {
    for (const isImplicit of [false, true]) {
      const vm = await TestVm.start(kit);
      const slot = await vm.addSlot(GPA, PAGES);
      await vm.setPrivate(slot, true);
      const first = GPA + GUARD * PAGE;
      const middle = { start: first, end: first + MIDDLE * PAGE };
      // Without help: the guest accepts its pages and says itself which half it means.
      vm.plainScript(function* (cpu) {
        yield* cpu.accept(GPA, PAGES);
        for (let i = 0; i < PAGES; i++) yield* cpu.write(GPA + i * PAGE, filled(16, P1));
        yield* tell(cpu, 1);
        if (!isImplicit) yield* cpu.vmcall(MAP_GPA, BigInt(first + ALIAS), BigInt(MIDDLE * PAGE));
        for (let i = 0; i < MIDDLE; i++) yield* cpu.write(first + ALIAS + i * PAGE, filled(16, P2));
        yield* tell(cpu, 2);
        if (!isImplicit) yield* cpu.vmcall(MAP_GPA, BigInt(first), BigInt(MIDDLE * PAGE));
        yield* cpu.accept(first, MIDDLE);
        for (let i = 0; i < MIDDLE; i++) yield* cpu.write(first + i * PAGE, filled(16, P3));
        for (let i = 0; i < PAGES; i++) {
          const isGuard = i < GUARD || i >= GUARD + MIDDLE;
          expect(yield* cpu.read(GPA + i * PAGE, 16)).toEqual(filled(16, isGuard ? P1 : P3));
        }
        yield* tell(cpu, 3);
      });
      expect(await vm.listen()).toBe(1);
      expect(await hostView(vm, GPA, PAGES)).toEqual(Array(PAGES).fill(0));
      if (isImplicit) {
        expectMemoryFault(await vm.run(), first, false);
        await vm.setPrivate(middle, false);
      }
      expect(await vm.listen()).toBe(2);
      const shared = Array.from({ length: PAGES }, (_, i) => (i < GUARD || i >= GUARD + MIDDLE ? 0 : P2));
      expect(await hostView(vm, GPA, PAGES)).toEqual(shared);
      if (isImplicit) {
        expectMemoryFault(await vm.run(), first, true);
        await vm.setPrivate(middle, true);
      }
      expect(await vm.listen()).toBe(3);
      expect(await hostView(vm, GPA, PAGES)).toEqual(shared);
      await vm.end();
    }
  },

  async upm_parallel(kit) {
    const one = await TestVm.start(kit);
    const other = await one.sibling();
    const run = async (vm: TestVm, byte: number): Promise<void> => {
      await vm.addSlot(GPA, PAGES);
      vm.script(function* (cpu) {
        for (let round = 0; round < 3; round++) {
          yield* vm.convert(cpu, GPA, PAGES, true);
          for (let i = 0; i < PAGES; i++) yield* cpu.write(GPA + i * PAGE, filled(16, byte));
          yield* vm.convert(cpu, GPA, PAGES, false);
          for (let i = 0; i < PAGES; i++) yield* cpu.write(GPA + i * PAGE, filled(16, byte + 1 + round));
          yield* say(cpu, round);
        }
      });
      for (let round = 0; round < 3; round++) {
        expect(await vm.listen(0, vm.task.process.thread(byte % 4))).toBe(round);
        expect(await hostView(vm, GPA, PAGES)).toEqual(Array(PAGES).fill(byte + 1 + round));
      }
    };
    await Promise.all([run(one, P1), run(other, P2)]);
    await other.vm.close();
    await one.end();
  },

  async gmem_private_and_shared(kit) {
    const vm = await TestVm.start(kit);
    await vm.addSlot(GPA, 2);
    let seen: number[] = [];
    vm.script(function* (cpu) {
      yield* vm.convert(cpu, GPA, 2, false);
      yield* cpu.write(GPA, filled(1, P1));
      yield* cpu.write(GPA + PAGE, filled(1, P1));
      yield* vm.convert(cpu, GPA, 1, true);
      yield* cpu.write(GPA, filled(1, P2));
      yield* say(cpu, 1);
      seen = [(yield* cpu.read(GPA, 1))[0]!, (yield* cpu.read(GPA + PAGE, 1))[0]!];
      yield* vm.convert(cpu, GPA, 1, false);
      seen.push((yield* cpu.read(GPA, 1))[0]!);
      yield* say(cpu, 2);
    });
    expect(await vm.listen()).toBe(1);
    expect(await hostView(vm, GPA, 2)).toEqual([P1, P1]);
    await vm.hostStore(GPA, filled(1, P3));
    expect(await vm.listen()).toBe(2);
    expect(seen).toEqual([P2, P1, P3]);
    await vm.end();
  },

  async vm_huge_page(kit) {
    const vm = await TestVm.start(kit, { kvm: { hugePages: true, tdx: { hugePages: true } } });
    const slot = await vm.addSlot(GPA, 1024);
    await vm.setPrivate(slot, true);
    const isLarge = (at: number): boolean | undefined => vm.record.backend.isLarge?.(at / PAGE, true);
    let accepted = -1n;
    vm.plainScript(function* (cpu) {
      // RCX bits 2:0: level 1, a page of 2 MiB.
      accepted = (yield* cpu.tdcall(TDG.memPageAccept, { rcx: BigInt(GPA + 1) }))[RAX]!;
      for (let i = 0; i < 512; i++) yield* cpu.write(GPA + i * PAGE, filled(4, P1));
      yield* cpu.accept(GPA + PAGE_2M, 1);
      yield* tell(cpu, 1);
      yield* cpu.vmcall(MAP_GPA, BigInt(GPA + ALIAS + 7 * PAGE), BigInt(PAGE));
      yield* cpu.write(GPA + ALIAS + 7 * PAGE, filled(4, P2));
      for (let i = 0; i < 512; i++) {
        if (i !== 7) expect(yield* cpu.read(GPA + i * PAGE, 4)).toEqual(filled(4, P1));
      }
      yield* tell(cpu, 2);
    });
    expect(await vm.preFault(GPA, PAGE_2M)).toEqual({ errno: null, left: 0 });
    expect(isLarge(GPA)).toBe(true);
    expect(await vm.listen()).toBe(1);
    expect(accepted).toBe(0n);
    expect([isLarge(GPA), isLarge(GPA + PAGE_2M)]).toEqual([true, false]);
    expect(await vm.listen()).toBe(2);
    expect(isLarge(GPA)).toBe(false);
    expect(await hostView(vm, GPA + 7 * PAGE, 1)).toEqual([P2]);
    await vm.end();
  },
});
