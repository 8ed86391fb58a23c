/** The cases of the public selftest private_mem_conversions_test, restated. */
import { expect } from 'vitest';
import { GIB } from '../../src/abi/address.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { FALLOC_FL } from '../../src/abi/system-call-flags.ts';
import type { GuestCpu, GuestFlow } from '../../src/lab/guest/flow.ts';
import { hostView } from './kits/expect.ts';
import type { Kit } from './kits/kit.ts';
import { say, TestVm } from './kits/test-vm.ts';
import { filled, PAGE } from './session.ts';
import { conformance } from './suite.ts';

const BASE = 4 * GIB;
/** Of each vCPU: 2 MiB and a page. */
const PAGES = 513;
/** First page and number of pages of what is converted. */
const STAGES: readonly (readonly [first: number, pages: number])[] = [
  [0, 1],
  [0, 512],
  [1, 1],
  [1, 512],
  [512, 1],
];
const P1 = 0x11;
const P2 = 0x22;
const P3 = 0x33;
const P4 = 0x44;
const P5 = 0x55;
const SAMPLE = 16;

/** Writes to the pages of [first, first + pages) for which `chosen` says so. */
function* fill(cpu: GuestCpu, base: number, first: number, pages: number, byte: number): GuestFlow {
  for (let i = first; i < first + pages; i++) yield* cpu.write(base + i * PAGE, filled(SAMPLE, byte));
}

function* expectPages(
  cpu: GuestCpu,
  base: number,
  first: number,
  pages: number,
  byte: (page: number) => number,
): GuestFlow {
  for (let i = first; i < first + pages; i++) {
    expect([i, ...(yield* cpu.read(base + i * PAGE, SAMPLE))]).toEqual([i, ...filled(SAMPLE, byte(i))]);
  }
}

function isOdd(first: number, page: number): boolean {
  return (page - first) % 2 === 1;
}

/** The guest of one vCPU; it says where it is after each step. */
function* guest(vm: TestVm, cpu: GuestCpu, base: number): GuestFlow {
  yield* vm.convert(cpu, base, PAGES, false);
  for (const [first, pages] of STAGES) {
    const isInside = (page: number): boolean => first <= page && page < first + pages;
    yield* fill(cpu, base, 0, PAGES, P1);
    yield* say(cpu, 1);
    yield* vm.convert(cpu, base + first * PAGE, pages, true);
    yield* fill(cpu, base, first, pages, P2);
    yield* expectPages(cpu, base, 0, PAGES, (page) => (isInside(page) ? P2 : P1));
    yield* say(cpu, 2);
    for (let page = first + 1; page < first + pages; page += 2) {
      yield* vm.convert(cpu, base + page * PAGE, 1, false);
      yield* fill(cpu, base, page, 1, P3);
    }
    yield* expectPages(cpu, base, first, pages, (page) => (isOdd(first, page) ? P3 : P2));
    yield* say(cpu, 3);
    yield* vm.convert(cpu, base + first * PAGE, pages, false);
    yield* fill(cpu, base, first, pages, P4);
    yield* say(cpu, 4);
    yield* expectPages(cpu, base, first, pages, () => P5);
    yield* say(cpu, 5);
  }
  yield* say(cpu, 6);
}

/** User space's side: what it sees after each step. */
async function serve(vm: TestVm, index: number, base: number): Promise<void> {
  const task = vm.task.process.thread(index + 1);
  const hear = async (step: number): Promise<void> => expect(await vm.listen(index, task)).toBe(step);
  for (const [first, pages] of STAGES) {
    const expectView = async (byte: (page: number) => number | string): Promise<void> => {
      const all = Array.from({ length: PAGES }, (_, page) =>
        page < first || page >= first + pages ? P1 : byte(page),
      );
      expect(await hostView(vm, base, PAGES)).toEqual(all);
    };
    // One page for both kinds is lost to user space; two halves keep what each has.
    const hidden = vm.isInPlace ? 'SIGBUS' : P1;
    await hear(1);
    await expectView(() => P1);
    await hear(2);
    await expectView(() => hidden);
    await hear(3);
    await expectView((page) => (isOdd(first, page) ? P3 : hidden));
    await hear(4);
    await expectView(() => P4);
    for (let page = first; page < first + pages; page++) {
      await vm.hostStore(base + page * PAGE, filled(SAMPLE, P5));
    }
    await hear(5);
  }
  await hear(6);
}

async function convertExplicitly(kit: Kit, vcpus: number, slots: number, allocates: boolean): Promise<void> {
  const vm = await TestVm.start(kit, { vcpus });
  vm.allocates = allocates;
  const slotPages = (PAGES * vcpus) / slots;
  for (let i = 0; i < slots; i++) await vm.addSlot(BASE + i * slotPages * PAGE, slotPages);
  const baseOf = (index: number): number => BASE + index * PAGES * PAGE;
  for (let i = 0; i < vcpus; i++) vm.script((cpu) => guest(vm, cpu, baseOf(i)), i);
  await Promise.all(Array.from({ length: vcpus }, (_, i) => serve(vm, i, baseOf(i))));
  await vm.end();
}

conformance('private_mem_conversions_test', {
  async C1(kit) {
    await convertExplicitly(kit, 1, 1, true);
    await convertExplicitly(kit, 1, 1, false);
    await convertExplicitly(kit, 2, 3, true);
    await convertExplicitly(kit, 2, 1, false);
  },

  async C2(kit) {
    for (const [first, pages] of STAGES) {
      const vm = await TestVm.start(kit);
      const slot = await vm.addSlot(BASE, PAGES);
      vm.script(function* (cpu) {
        yield* vm.convert(cpu, BASE, PAGES, true);
        for (const [start, count] of [
          [first, pages],
          [0, PAGES],
        ] as const) {
          yield* fill(cpu, BASE, 0, PAGES, P2);
          yield* say(cpu, start);
          vm.speech.lost(BASE + start * PAGE, count);
          yield* expectPages(cpu, BASE, 0, PAGES, (page) => (start <= page && page < start + count ? 0 : P2));
        }
        yield* say(cpu, PAGES);
      });
      for (const [start, count] of [
        [first, pages],
        [0, PAGES],
      ] as const) {
        expect(await vm.listen()).toBe(start);
        const range = { start: slot.start + start * PAGE, end: slot.start + (start + count) * PAGE };
        await vm.allocate(range, true);
      }
      expect(await vm.listen()).toBe(PAGES);
      await vm.end();
    }
  },

  async C3(kit) {
    const vm = await TestVm.start(kit);
    const slot = await vm.addSlot(BASE, PAGES);
    vm.script(function* (cpu) {
      yield* vm.convert(cpu, BASE, PAGES, true);
      yield* fill(cpu, BASE, 0, 8, P2);
      yield* say(cpu, 1);
    });
    expect(await vm.listen()).toBe(1);
    const { calls, kvm, fd, vcpus } = vm.vm;
    const runBytes = await calls.ioctl(kvm, KVM.GET_VCPU_MMAP_SIZE);
    await calls.close(fd);
    for (const vcpu of vcpus) {
      await calls.munmap(vcpu.runAddress, runBytes);
      await calls.close(vcpu.fd);
    }
    await calls.fallocate(slot.fd!, FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE, 0, PAGES * PAGE);
    expect(calls.fstat(slot.fd!).blocks).toBe(0);
    await calls.fallocate(slot.fd!, FALLOC_FL.KEEP_SIZE, 0, PAGES * PAGE);
    expect(calls.fstat(slot.fd!).blocks).toBe((PAGES * PAGE) / 512);
    await vm.exit();
  },
});
