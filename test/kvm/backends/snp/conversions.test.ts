/**
 * Conversions while a guest runs, in many orders: the host never reads or overwrites what the guest keeps in private
 * memory, no page has two owners, and the guest loses nothing without being told.
 */
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../../src/abi/address.ts';
import { KVM_RUN_EXIT } from '../../../../src/abi/kvm/exits.ts';
import { GuestException } from '../../../../src/lab/guest/flow.ts';
import { exploreSeeds } from '../../../../src/lab/schedule/explore.ts';
import type { Scheduler } from '../../../../src/lab/schedule/scheduler.ts';
import { EntropySource } from '../../../../src/machine/random.ts';
import { RmpFault } from '../../../../src/machine/snp/rmp-checks.ts';
import { account, C_BIT, GUEST_MEMORY, type SnpTestHost, snpHost, UserSnp } from './user-snp.ts';

const PAGES = 3;
const FIRST = GUEST_MEMORY + PAGE_4K;
const PRIVATE = 2 ** C_BIT;
const GUEST_STEPS = 25;
const HOST_STEPS = 15;
/** Every secret begins with it; nobody else writes it. */
const SECRET = Uint8Array.of(0xc0, 0xff, 0xee, 0x5e);

const gpaOf = (page: number): number => FIRST + page * PAGE_4K;
const secretOf = (n: number): Uint8Array => Uint8Array.of(...SECRET, n, n + 1, n + 2, n + 3);

class Dice {
  readonly #source: EntropySource;

  constructor(seed: bigint) {
    this.#source = new EntropySource(seed);
  }

  below(limit: number): number {
    return Number(this.#source.next64()! % BigInt(limit));
  }
}

/** A guest that keeps secrets in private memory and knows what it must find there. */
function startGuest(user: UserSnp, dice: Dice): { losses: number; reads: number } {
  const count = { losses: 0, reads: 0 };
  const kept = new Map<number, Uint8Array>();
  user.snpScript(function* (verbs) {
    const { cpu } = verbs;
    for (let step = 0; step < GUEST_STEPS; step++) {
      const page = dice.below(PAGES);
      const gpa = gpaOf(page);
      const action = dice.below(4);
      if (action === 0) {
        // C=0: the guest gives the page up first, as a guest must that does not want to lose data.
        kept.delete(page);
        yield* cpu.write(gpa, Uint8Array.of(1, 2, 3, 4));
        continue;
      }
      try {
        if (action === 1) {
          yield* cpu.write(PRIVATE + gpa, secretOf(step));
          kept.set(page, secretOf(step));
        } else {
          const found = (yield* cpu.read(PRIVATE + gpa, 8)).slice();
          const wanted = kept.get(page);
          if (wanted !== undefined) expect(found).toEqual(wanted);
          count.reads++;
        }
      } catch (error) {
        if (!(error instanceof GuestException)) throw error;
        expect(error).toMatchObject({ vector: 29, errorCode: 0x404 });
        // The guest is told: this is another page than the one it knew.
        if (kept.delete(page)) count.losses++;
        const { status, unchanged } = yield* verbs.pvalidate(gpa);
        expect([status, unchanged]).toEqual([0, false]);
      }
    }
    yield* cpu.hlt();
  });
  return count;
}

/** The VMM's thread: runs the vCPU and agrees to whatever the guest turns out to use. */
async function runVmm(user: UserSnp): Promise<void> {
  for (;;) {
    const exit = await user.run();
    if (exit === 'HLT') return;
    expect(exit).toBe('EFAULT MEMORY_FAULT');
    const { flags, gpa } = await user.union(KVM_RUN_EXIT.MEMORY_FAULT);
    await user.setPrivate(Number(gpa), 1, flags !== 0n);
  }
}

/** Another thread of the host: converts, punches holes, and tries what it must not be able to do. */
async function disturb(user: UserSnp, host: SnpTestHost, dice: Dice): Promise<void> {
  const [lp] = host.machine.lps;
  for (let step = 0; step < HOST_STEPS; step++) {
    const page = dice.below(PAGES);
    const gpa = gpaOf(page);
    const pfn = backingPfn(user, gpa);
    switch (dice.below(4)) {
      case 0:
        await user.setPrivate(gpa, 1, dice.below(2) === 0);
        break;
      case 1:
        await user.punch(gpa, 1);
        break;
      case 2:
        await user.task.store(user.memory + gpa - GUEST_MEMORY, Uint8Array.of(9, 9, 9, 9));
        break;
      default:
        if (pfn === undefined) break;
        if (host.snp.snp.rmp.isAssigned(pfn)) {
          expect(() => lp!.store(pfn * PAGE_4K, new Uint8Array(8))).toThrow(RmpFault);
        }
        expect([...lp!.load(pfn * PAGE_4K, 4)]).not.toEqual([...SECRET]);
    }
    checkOwners(user, host);
    await host.kernel.schedule?.('host');
  }
}

function backingPfn(user: UserSnp, gpa: number): number | undefined {
  const [file] = user.backend.guest.vm.files.open;
  return file!.inode.pageAt((gpa - GUEST_MEMORY) / PAGE_4K);
}

/** No two guest frames have one page, and what is mapped as private is the guest's. */
function checkOwners(user: UserSnp, host: SnpTestHost): void {
  const { guest } = user.backend;
  const owners = new Map<number, number>();
  for (let page = 0; page < PAGES; page++) {
    const gfn = gpaOf(page) / PAGE_4K;
    const mapping = guest.nested.lookup(gfn, -1);
    if (mapping === null || mapping === 'mmio') continue;
    expect(owners.has(mapping.pfn)).toBe(false);
    owners.set(mapping.pfn, gfn);
    const entry = host.snp.snp.rmp.covering(mapping.pfn);
    if (guest.nested.isMapped(gfn, true)) expect(entry).toMatchObject({ asid: guest.asid, gpa: gpaOf(page) });
    else expect(entry.assigned).toBe(false);
  }
}

describe('conversions while a guest runs', () => {
  it('hold in every order that seeds make', async () => {
    const host = await snpHost();
    host.guests.budget = 2;
    const total = { losses: 0, reads: 0 };
    let seed = 0n;
    await exploreSeeds(40, async (scheduler: Scheduler) => {
      seed++;
      const before = account(host);
      const user = await UserSnp.launching(host, PAGES + 1);
      await user.finish();
      const count = startGuest(user, new Dice(seed));
      host.kernel.schedule = scheduler.point;
      try {
        const vmm = scheduler.start('vmm', () => runVmm(user));
        const other = scheduler.start('host', () => disturb(user, host, new Dice(1000n + seed)));
        await scheduler.run();
        await Promise.all([vmm, other]);
      } finally {
        host.kernel.schedule = null;
      }
      await user.exit();
      expect(account(host)).toEqual(before);
      total.losses += count.losses;
      total.reads += count.reads;
    });
    // Both happened: data that stayed, and data that the host threw away.
    expect(total.reads).toBeGreaterThan(50);
    expect(total.losses).toBeGreaterThan(3);
  });
});
