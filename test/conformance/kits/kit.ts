/** What a conformance case must know of a technology: how its VMs come about, and how its guests speak. */
import { PAGE_4K } from '../../../src/abi/address.ts';
import type { GuestCpu, GuestFlow, GuestScript } from '../../../src/lab/guest/flow.ts';
import type { GuestBacking } from '../../../src/vmm/vm/guest-memory.ts';
import type { GuestVm } from '../../../src/vmm/vm/guest-vm.ts';
import type { ModelSide, Subject } from '../subjects.ts';

export interface Kit {
  /** The kernel on which such VMs run. */
  readonly subject: Subject;
  /** Argument of KVM_CREATE_VM. */
  readonly vmType: number;
  /** What a slot is backed by, unless conversion in place is on. */
  readonly backing: GuestBacking;
  /** Guests take all memory for private until they share it, so a new slot is made private first. */
  readonly startsPrivate: boolean;
  /** What guests wrote is still there after a page was converted in place. */
  readonly preserves: boolean;
  /** What comes before the first vCPU. */
  init(vm: GuestVm): Promise<void>;
  /** What comes after the last vCPU, until the guest may run. */
  launch(vm: GuestVm): Promise<void>;
  /** How guests of one VM speak; made once for each VM. */
  guest(side: ModelSide): GuestSpeech;
}

export interface GuestSpeech {
  /** `script` as a program for such a guest: it uses plain addresses and needs to validate nothing. */
  wrap(script: GuestScript): GuestScript;
  /** Asks for pages to be made private or shared; 0 is success. */
  convert(cpu: GuestCpu, gpa: number, pages: number, isPrivate: boolean): GuestFlow<bigint>;
  /** The guest learns that the host has taken private pages away and will give new ones. */
  lost(gpa: number, pages: number): void;
}

/** Nothing to do. */
export async function nothing(): Promise<void> {}

/** A guest that runs as it is and converts by KVM's hypercall. */
export const BY_HYPERCALL: GuestSpeech = {
  wrap: (script) => script,
  convert: (cpu, gpa, pages, isPrivate) => cpu.mapGpaRange(gpa, pages, isPrivate),
  lost: () => {},
};

/** Converts for guests that must not ask for what a page already is: all pages are private at first. */
export function converting(convert: GuestSpeech['convert']): GuestSpeech['convert'] {
  const shared = new Set<number>();
  return function* (cpu, gpa, pages, isPrivate) {
    for (const { start, count } of runsOf(gpa, pages, (at) => shared.has(at) === isPrivate)) {
      const status = yield* convert(cpu, start, count, isPrivate);
      if (status !== 0n) return status;
      for (let at = start; at < start + count * PAGE_4K; at += PAGE_4K) {
        if (isPrivate) shared.delete(at);
        else shared.add(at);
      }
    }
    return 0n;
  };
}

/** Pages of [gpa, gpa + pages * 4 KiB) that `isMeant`, neighbours together. */
function runsOf(
  gpa: number,
  pages: number,
  isMeant: (gpa: number) => boolean,
): readonly { start: number; count: number }[] {
  const runs: { start: number; count: number }[] = [];
  for (let at = gpa; at < gpa + pages * PAGE_4K; at += PAGE_4K) {
    const last = runs.at(-1);
    if (!isMeant(at)) continue;
    if (last !== undefined && last.start + last.count * PAGE_4K === at) last.count++;
    else runs.push({ start: at, count: 1 });
  }
  return runs;
}
