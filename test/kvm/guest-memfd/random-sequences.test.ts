/** Random system calls on one file, in step with a model that knows only the rules. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { KernelError } from '../../../src/abi/errno.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import { GUEST_MEMFD_FLAG, KVM_MEMORY_ATTRIBUTES2 } from '../../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MAP, PROT } from '../../../src/abi/system-call-flags.ts';
import { UserFault } from '../../../src/kernel/process/system-calls.ts';
import type { GuestMemfdFile } from '../../../src/kvm/guest-memfd/file.ts';
import { SW_PROTECTED_FILE } from '../../../src/kvm/guest-memfd/technologies.ts';
import { type Bench, startBench } from './fake-vm.ts';

const PAGES = 12;
const PAGE = PAGE_4K;
const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;

type Step =
  | { kind: 'allocate' | 'punch'; start: number; pages: number }
  | { kind: 'convert'; start: number; pages: number; toPrivate: boolean }
  | { kind: 'bind'; id: number; start: number; pages: number }
  | { kind: 'unbind'; id: number }
  | { kind: 'guest'; id: number; offset: number; value: number }
  | { kind: 'store' | 'load'; page: number; value: number }
  | { kind: 'pin' | 'unpin'; page: number }
  | { kind: 'map' | 'unmap' | 'close' };

const page = fc.nat(PAGES + 1);
const pages = fc.integer({ min: 1, max: PAGES });
const id = fc.nat(2);
const value = fc.integer({ min: 1, max: 255 });
const just = <T extends string>(kind: T) => fc.constant(kind);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom('allocate' as const, 'punch' as const),
      start: page,
      pages,
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: just('convert'), start: page, pages, toPrivate: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ kind: just('bind'), id, start: page, pages }) },
  { weight: 1, arbitrary: fc.record({ kind: just('unbind'), id }) },
  { weight: 4, arbitrary: fc.record({ kind: just('guest'), id, offset: fc.nat(PAGES - 1), value }) },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constantFrom('store' as const, 'load' as const), page, value }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('pin' as const, 'unpin' as const), page }) },
  { weight: 2, arbitrary: fc.record({ kind: just('map') }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('unmap' as const, 'close' as const) }) },
);

interface ModelPage {
  value: number;
  isPrivate: boolean;
  isThere: boolean;
}

/** What user space may expect. */
class Model {
  readonly pages: ModelPage[];
  readonly slots = new Map<number, { start: number; pages: number }>();
  /** Pages of the file that a device has pinned. */
  readonly pinned = new Set<number>();
  isOpen = true;
  isMapped = false;

  constructor(isPrivate: boolean) {
    this.pages = Array.from({ length: PAGES }, () => ({ value: 0, isPrivate, isThere: false }));
  }

  get isAlive(): boolean {
    return this.isOpen || this.isMapped;
  }

  range(start: number, count: number): ModelPage[] {
    return this.pages.slice(start, start + count);
  }

  /** The file's memory goes with its last reference. */
  dropIfClosed(): void {
    if (this.isAlive) return;
    this.slots.clear();
    this.pinned.clear();
    for (const one of this.pages) one.isThere = false;
  }

  touch(index: number): ModelPage {
    const one = this.pages[index]!;
    if (!one.isThere) Object.assign(one, { isThere: true, value: 0 });
    return one;
  }
}

/** 'done', a value, an errno, or a signal. */
async function outcome(work: () => Promise<unknown>): Promise<unknown> {
  try {
    return (await work()) ?? 'done';
  } catch (error) {
    if (error instanceof KernelError) return error.errno;
    if (error instanceof UserFault) return error.signal;
    throw error;
  }
}

class System {
  readonly bench: Bench;
  readonly fd: number;
  readonly file: GuestMemfdFile;
  readonly pins = new Map<number, number>();
  address = 0;
  errorOffset = -1;

  constructor(bench: Bench, fd: number, file: GuestMemfdFile) {
    this.bench = bench;
    this.fd = fd;
    this.file = file;
  }

  convert(start: number, count: number, toPrivate: boolean): Promise<unknown> {
    const range = { offset: BigInt(start * PAGE), size: BigInt(count * PAGE) };
    const buffer = KVM_MEMORY_ATTRIBUTES2.encode({ ...range, attributes: toPrivate ? 8n : 0n });
    return outcome(async () => {
      try {
        await this.bench.task.ioctl(this.fd, KVM.SET_MEMORY_ATTRIBUTES2, buffer);
      } finally {
        this.errorOffset = Number(KVM_MEMORY_ATTRIBUTES2.decode(buffer).error_offset);
      }
    });
  }

  async guest(slotId: number, offset: number, byte: number): Promise<unknown> {
    const slot = this.bench.vm.slots.get(slotId);
    if (slot === undefined || offset >= slot.pages) return 'no slot';
    if (slot.backing === null) return 'EFAULT';
    const pfn = await this.bench.vm.touch(slot, slot.baseGfn + offset);
    const { lp } = this.bench.task;
    const [before] = lp.load(pfn * PAGE, 1);
    lp.store(pfn * PAGE, Uint8Array.of(byte));
    return before;
  }

  unpin(index: number): void {
    this.bench.kernel.pageRefs.unpin(this.pins.get(index)!);
    this.pins.delete(index);
  }
}

async function apply(system: System, model: Model, one: Step): Promise<void> {
  const { bench, fd, file } = system;
  const { task, vm, kernel } = bench;
  const expectOutcome = async (work: () => Promise<unknown>, expected: unknown): Promise<void> => {
    expect(await outcome(work)).toEqual(expected);
  };
  if (one.kind === 'allocate' || one.kind === 'punch') {
    const isHole = one.kind === 'punch';
    const mode = FALLOC_FL.KEEP_SIZE | (isHole ? FALLOC_FL.PUNCH_HOLE : 0);
    const beyond = !isHole && one.start + one.pages > PAGES;
    const expected = !model.isOpen ? 'EBADF' : beyond ? 'EINVAL' : 'done';
    await expectOutcome(() => task.fallocate(fd, mode, one.start * PAGE, one.pages * PAGE), expected);
    if (expected !== 'done') return;
    for (let i = one.start; i < Math.min(one.start + one.pages, PAGES); i++) {
      if (!isHole) model.touch(i);
      else model.pages[i]!.isThere = false;
      if (isHole) model.pinned.delete(i);
    }
  } else if (one.kind === 'convert') {
    const { start, pages: count, toPrivate } = one;
    const result = await system.convert(start, count, toPrivate);
    if (!model.isOpen) expect(result).toBe('EBADF');
    else if (start + count > PAGES) expect(result).toBe('EINVAL');
    else {
      const isNoop = model.range(start, count).every(({ isPrivate }) => isPrivate === toPrivate);
      const inUse = model.pages.findIndex((_, i) => start <= i && i < start + count && model.pinned.has(i));
      const waits = toPrivate && !isNoop && inUse !== -1;
      expect(result).toBe(waits ? 'EAGAIN' : 'done');
      if (waits) expect(system.errorOffset).toBe(inUse * PAGE);
      else for (const changed of model.range(start, count)) changed.isPrivate = toPrivate;
    }
  } else if (one.kind === 'bind') {
    if (!model.isOpen || model.slots.has(one.id) || vm.slots.has(one.id)) return;
    const overlaps = [...model.slots.values()].some(
      (slot) => slot.start < one.start + one.pages && one.start < slot.start + slot.pages,
    );
    const expected = one.start + one.pages > PAGES ? 'EINVAL' : overlaps ? 'EEXIST' : 'done';
    const bound = async () => void (await vm.bind(one.id, file, 0x1000 * (one.id + 1), one.start, one.pages));
    await expectOutcome(bound, expected);
    if (expected === 'done') model.slots.set(one.id, { start: one.start, pages: one.pages });
  } else if (one.kind === 'unbind') {
    if (!vm.slots.has(one.id)) return;
    await vm.unbind(one.id);
    model.slots.delete(one.id);
  } else if (one.kind === 'guest') {
    const slot = model.slots.get(one.id);
    const result = await system.guest(one.id, one.offset, one.value);
    if (slot === undefined) expect(['no slot', 'EFAULT']).toContain(result);
    else if (one.offset >= slot.pages) expect(result).toBe('no slot');
    else {
      const touched = model.touch(slot.start + one.offset);
      expect(result).toBe(touched.value);
      touched.value = one.value;
    }
  } else if (one.kind === 'store' || one.kind === 'load') {
    if (!model.isMapped) return;
    const reached = model.pages[one.page];
    const at = system.address + one.page * PAGE;
    const refused = reached === undefined || reached.isPrivate;
    const touched = refused ? undefined : model.touch(one.page);
    if (one.kind === 'load')
      await expectOutcome(async () => (await task.load(at, 1))[0], touched?.value ?? 'SIGBUS');
    else await expectOutcome(() => task.store(at, Uint8Array.of(one.value)), refused ? 'SIGBUS' : 'done');
    if (one.kind === 'store' && touched !== undefined) touched.value = one.value;
  } else if (one.kind === 'pin') {
    const reached = model.pages[one.page];
    if (!model.isMapped || reached === undefined || reached.isPrivate || system.pins.has(one.page)) return;
    model.touch(one.page);
    const pfn = await task.process.memory.faultIn((system.address + one.page * PAGE) / PAGE, true, task);
    kernel.pageRefs.pin(pfn);
    system.pins.set(one.page, pfn);
    model.pinned.add(one.page);
  } else if (one.kind === 'unpin') {
    if (system.pins.has(one.page)) system.unpin(one.page);
    model.pinned.delete(one.page);
  } else if (one.kind === 'map') {
    if (!model.isOpen || model.isMapped) return;
    const prot = PROT.READ | PROT.WRITE;
    system.address = await task.mmap({ fd, lengthBytes: (PAGES + 2) * PAGE, prot, flags: MAP.SHARED });
    model.isMapped = true;
  } else if (one.kind === 'unmap') {
    if (!model.isMapped) return;
    await task.munmap(system.address, (PAGES + 2) * PAGE);
    model.isMapped = false;
    model.dropIfClosed();
  } else {
    await expectOutcome(() => task.close(fd), model.isOpen ? 'done' : 'EBADF');
    model.isOpen = false;
    model.dropIfClosed();
  }
}

/** What must hold whatever was called. */
function check({ bench, file, pins }: System, model: Model, freeAtFirst: number): void {
  const { vm, kernel } = bench;
  const { inode } = file;
  const there = model.pages.filter(({ isThere }) => isThere).length;
  expect(inode.allocatedPages).toBe(there);
  const frames = new Set(
    model.pages.map((_, index) => inode.pageAt(index)).filter((pfn) => pfn !== undefined),
  );
  expect(frames.size).toBe(there);
  const held = [...new Set(pins.values())].filter((pfn) => !frames.has(pfn)).length;
  // Slots that lost their file may stay; anonymous pages there are none.
  expect(freeAtFirst - bench.freePages()).toBe(there + held);
  for (const [index, one] of model.pages.entries()) {
    if (model.isAlive) expect(inode.isPrivate(index)).toBe(one.isPrivate);
    if (one.isPrivate) expect(inode.mapping.countMapped(index, index + 1)).toBe(0);
  }
  for (const [gfn, pfn] of vm.mapped) {
    const slot = [...vm.slots.values()].find(({ baseGfn, pages: n }) => baseGfn <= gfn && gfn < baseGfn + n)!;
    expect(inode.pageAt(gfn - slot.baseGfn + slot.backingIndex)).toBe(pfn);
  }
  expect(vm.open).toBe(0);
  kernel.allocator.audit();
}

describe('random sequences on a guest_memfd', () => {
  it.each([
    { name: 'shared at first', flags: MMAP | INIT_SHARED, hugePages: false },
    { name: 'private at first', flags: MMAP, hugePages: true },
  ])('do what the rules say: $name', async ({ flags, hugePages }) => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 60 }), async (steps) => {
        const bench = await startBench(SW_PROTECTED_FILE, { inPlaceConversion: true, hugePages });
        const freeAtFirst = bench.freePages();
        const { fd, file } = await bench.create(PAGES, flags);
        const system = new System(bench, fd, file);
        const model = new Model(flags === MMAP);
        for (const one of [{ kind: 'map' } as const, ...steps]) {
          await apply(system, model, one);
          check(system, model, freeAtFirst);
        }
        for (const index of [...system.pins.keys()]) system.unpin(index);
        await bench.end();
      }),
      { numRuns: 60 },
    );
  });
});
