/** The cases of the public selftest pre_fault_memory_test, restated. */
import { expect } from 'vitest';
import { GIB } from '../../src/abi/address.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_PRE_FAULT_MEMORY } from '../../src/abi/kvm/structs.ts';
import { exploreSeeds } from '../../src/lab/schedule/explore.ts';
import type { Kit } from './kits/kit.ts';
import { say, TestVm } from './kits/test-vm.ts';
import { filled, PAGE, refused, TWO_MIB } from './session.ts';
import { conformance } from './suite.ts';

const GPA = 4 * GIB;
/** 2 MiB and a page. */
const PAGES = 513;
const BYTE = 0x5a;
const FEW = 8;

/** A slot of one kind. The guest has been told so; when it goes on it reads all of it. */
async function prepared(
  kit: Kit,
  pages: number,
  isPrivate: boolean,
): Promise<{ vm: TestVm; sum: () => number }> {
  const vm = await TestVm.start(kit);
  const slot = await vm.addSlot(GPA, pages);
  if (isPrivate) await vm.setPrivate(slot, true);
  else for (let i = 0; i < pages; i++) await vm.hostStore(GPA + i * PAGE, filled(1, BYTE));
  let sum = 0;
  vm.script(function* (cpu) {
    if (!isPrivate) yield* vm.convert(cpu, GPA, pages, false);
    yield* say(cpu, 1);
    for (let i = 0; i < pages; i++) sum += (yield* cpu.read(GPA + i * PAGE, 1))[0]!;
    yield* say(cpu, 2);
  });
  expect(await vm.listen()).toBe(1);
  return { vm, sum: () => sum };
}

/** Asks again as long as there is progress, as the interface wants it. */
async function preFaultAll(
  vm: TestVm,
  gpa: number,
  bytes: number,
): Promise<{ errno: string | null; left: number }> {
  for (let left = bytes; ; ) {
    const result = await vm.preFault(gpa + bytes - left, left);
    if (result.errno !== null || result.left === 0) return result;
    expect(result.left).toBeLessThan(left);
    left = result.left;
  }
}

async function toTheEnd(kit: Kit, isPrivate: boolean): Promise<void> {
  const { vm, sum } = await prepared(kit, PAGES, isPrivate);
  expect(await preFaultAll(vm, GPA, TWO_MIB)).toEqual({ errno: null, left: 0 });
  if (isPrivate) expect(vm.task.fstat(vm.vm.slots.at(-1)!.fd!).blocks).toBe(TWO_MIB / 512);
  expect(await preFaultAll(vm, GPA + TWO_MIB, 2 * PAGE)).toEqual({ errno: 'ENOENT', left: PAGE });
  expect(await preFaultAll(vm, GPA + PAGES * PAGE, PAGE)).toEqual({ errno: 'ENOENT', left: PAGE });
  expect(await vm.listen()).toBe(2);
  expect(sum()).toBe(isPrivate ? 0 : PAGES * BYTE);
  await vm.end();
}

conformance('pre_fault_memory_test', {
  shared: (kit) => toTheEnd(kit, false),
  private: (kit) => toTheEnd(kit, true),

  replaced: (kit) =>
    exploreSeeds(8, async (scheduler) => {
      const isPrivate = kit.backing !== 'anonymous';
      const { vm } = await prepared(kit, FEW, isPrivate);
      const slot = vm.vm.slots.at(-1)!;
      vm.side.host.kernel.schedule = scheduler.point;
      scheduler.start('user', async () => {
        for (let i = 0; i < 2; i++) {
          await vm.deleteSlot(slot);
          await vm.setSlot(slot, {});
        }
      });
      const seen = new Set<string | null>();
      scheduler.start('pre-fault', async () => {
        const task = vm.task.process.thread(1);
        for (let i = 0; i < 6; i++) seen.add((await vm.preFault(GPA, FEW * PAGE, task)).errno);
      });
      await scheduler.run();
      for (const errno of seen) expect([null, 'EAGAIN', 'ENOENT']).toContain(errno);
      expect(await preFaultAll(vm, GPA, FEW * PAGE)).toEqual({ errno: null, left: 0 });
      expect(await vm.listen()).toBe(2);
      await vm.end();
    }),

  async misuse(kit) {
    const vm = await TestVm.start(kit);
    await vm.addSlot(GPA, 2);
    const ask = (range: Parameters<typeof KVM_PRE_FAULT_MEMORY.encode>[0]): Promise<number> =>
      vm.task.ioctl(vm.vm.vcpus[0]!.fd, KVM.PRE_FAULT_MEMORY, KVM_PRE_FAULT_MEMORY.encode(range));
    const good = { gpa: BigInt(GPA), size: BigInt(PAGE) };
    for (let bit = 0n; bit < 64n; bit++) await refused(ask({ ...good, flags: 1n << bit }), 'EINVAL');
    await refused(ask({ ...good, gpa: good.gpa + 1n }), 'EINVAL');
    await refused(ask({ ...good, size: 1n }), 'EINVAL');
    await refused(ask({ ...good, size: 0n }), 'EINVAL');
    await refused(ask({ gpa: -4096n, size: BigInt(PAGE) }), 'EINVAL');
    const { sharedBit } = vm.record.backend;
    if (sharedBit !== null)
      await refused(ask({ ...good, gpa: good.gpa + 2n ** BigInt(sharedBit) }), 'EINVAL');
    await vm.end();
  },
});
