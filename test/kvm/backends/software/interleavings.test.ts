/** Guests convert their memory while user space uses the shared half and punches holes, in many orders. */
import { describe, expect, it } from 'vitest';
import { KVM_CAP } from '../../../../src/abi/kvm/capabilities.ts';
import { KVM_HC_MAP_GPA_RANGE, KVM_MAP_GPA_RANGE, KVM_RUN_EXIT } from '../../../../src/abi/kvm/exits.ts';
import { KVM } from '../../../../src/abi/kvm/ioctl.ts';
import { KVM_MEM } from '../../../../src/abi/kvm/structs.ts';
import { FALLOC_FL } from '../../../../src/abi/system-call-flags.ts';
import type { Task } from '../../../../src/kernel/process/task.ts';
import type { GuestCpu, GuestFlow } from '../../../../src/lab/guest/flow.ts';
import { exploreSeeds } from '../../../../src/lab/schedule/explore.ts';
import type { Scheduler } from '../../../../src/lab/schedule/scheduler.ts';
import { KvmSession, PAGE, type Runner } from '../../kvm-session.ts';

const BASE = 0x4000_0000;
const HOLE = FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE;
/** What the guest has in private memory, and what it and user space put into shared memory. */
const SECRET = 0x5e;
const PUBLIC = 0x11;
const HOSTS = 0x22;
const ROUNDS = 3;
/** Per vCPU a page that stays private, and one that it converts. */
const PAGES = 4;

async function start() {
  const session = await KvmSession.start();
  const vm = await session.createVm(1);
  await session.enableCap(vm, KVM_CAP.EXIT_HYPERCALL, 1n << BigInt(KVM_HC_MAP_GPA_RANGE));
  const file = await session.createFile(vm, PAGES);
  const user = await session.anonymous(PAGES);
  await session.setRegion(vm, {
    slot: 0,
    flags: KVM_MEM.GUEST_MEMFD,
    guest_phys_addr: BigInt(BASE),
    memory_size: BigInt(PAGES * PAGE),
    userspace_addr: BigInt(user),
    guest_memfd: file,
  });
  for (const page of [0, 2]) await session.setAttributes(vm, BASE + page * PAGE, PAGE, 8n);
  session.kvmHost.guests.budget = 2;
  return { session, vm, file, user };
}

/** The thread of a vCPU: it converts as the guest asks, and gives back what is private no more. */
async function serve(setup: Awaited<ReturnType<typeof start>>, runner: Runner, task: Task): Promise<void> {
  const { session, vm, file } = setup;
  for (;;) {
    await task.ioctl(runner.fd, KVM.RUN);
    if ((await runner.reason()) !== 'HYPERCALL') return;
    const { args } = await runner.exit(KVM_RUN_EXIT.HYPERCALL);
    const gpa = Number(args[0]);
    const isPrivate = (args[2]! & KVM_MAP_GPA_RANGE.ENC_STAT) !== 0n;
    await session.setAttributes(vm, gpa, PAGE, isPrivate ? 8n : 0n);
    if (!isPrivate) await task.fallocate(file, HOLE, gpa - BASE, PAGE);
  }
}

async function race(
  scheduler: Scheduler,
  forgetFlushes = false,
): Promise<{ seen: Set<number>; lost: number }> {
  const setup = await start();
  const { session, vm, user } = setup;
  const { task } = session;
  const { kernel } = session.host;
  const log = { lost: 0, done: 0 };

  function* script(cpu: GuestCpu): GuestFlow {
    const keeps = BASE + 2 * cpu.index * PAGE;
    const converts = keeps + PAGE;
    yield* cpu.read(converts, 1);
    for (let round = 1; round <= ROUNDS; round++) {
      yield* cpu.write(keeps, Uint8Array.of(round));
      yield* cpu.mapGpaRange(converts, 1, true);
      yield* cpu.write(converts, Uint8Array.of(SECRET));
      if ((yield* cpu.read(converts, 1))[0] !== SECRET) log.lost++;
      yield* cpu.write(converts, Uint8Array.of(0));
      yield* cpu.mapGpaRange(converts, 1, false);
      yield* cpu.write(converts, Uint8Array.of(PUBLIC));
      const [shared = 0] = yield* cpu.read(converts, 1);
      if (shared !== PUBLIC && shared !== HOSTS) log.lost++;
      if ((yield* cpu.read(keeps, 1))[0] !== round) log.lost++;
    }
    log.done++;
  }

  const runners = [await session.runner(vm, script, 0), await session.runner(vm, script, 1)];
  if (forgetFlushes) session.vm(vm).flushTlbs = async () => {};
  kernel.schedule = scheduler.point;
  for (const [i, runner] of runners.entries()) {
    scheduler.start(`vcpu ${i}`, () => serve(setup, runner, task.thread(i + 1)));
  }
  const seen = new Set<number>();
  scheduler.start('user', async () => {
    for (let i = 0; i < 12; i++) {
      const page = user + (1 + 2 * (i % 2)) * PAGE;
      seen.add((await task.load(page, 1))[0]!);
      await task.store(page, Uint8Array.of(HOSTS));
      await kernel.schedule?.('user');
    }
  });
  await scheduler.run();
  kernel.schedule = null;
  expect(log.done).toBe(2);
  await task.exit();
  expect(session.leaks().pages).toBe(0);
  return { seen, lost: log.lost };
}

describe('guests with private memory and user space in many orders', () => {
  it('keep their secrets and lose nothing', async () => {
    const all = new Set<number>();
    await exploreSeeds(60, async (scheduler) => {
      const { seen, lost } = await race(scheduler);
      expect(seen).not.toContain(SECRET);
      expect(lost).toBe(0);
      for (const byte of seen) all.add(byte);
    });
    expect(all).toContain(PUBLIC);
    expect(all).toContain(HOSTS);
  });

  it('would not, were TLB flushes forgotten', async () => {
    let broken = 0;
    await exploreSeeds(20, async (scheduler) => {
      const { seen, lost } = await race(scheduler, true);
      if (seen.has(SECRET) || lost > 0) broken++;
    });
    expect(broken).toBeGreaterThan(0);
  });
});
