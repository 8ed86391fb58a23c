/** A protected guest shares and unshares while user space stores, converts and punches, in many orders. */
import { describe, expect, it } from 'vitest';
import { KernelError } from '../../../../src/abi/errno.ts';
import { KVM } from '../../../../src/abi/kvm/ioctl.ts';
import {
  GUEST_MEMFD_FLAG,
  KVM_MEM,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_MEMORY_ATTRIBUTES2,
} from '../../../../src/abi/kvm/structs.ts';
import { KVM_VM_TYPE } from '../../../../src/abi/kvm/vm-types.ts';
import { SMCCC } from '../../../../src/abi/pkvm.ts';
import { MAP } from '../../../../src/abi/system-call-flags.ts';
import { PAGE_STATE } from '../../../../src/hypervisor/page-state.ts';
import type { PkvmHypervisor } from '../../../../src/hypervisor/pkvm-hypervisor.ts';
import { UserFault } from '../../../../src/kernel/process/system-calls.ts';
import type { GuestFlow } from '../../../../src/lab/guest/flow.ts';
import { sharePages, unsharePages } from '../../../../src/lab/guest/pkvm-guest.ts';
import { exploreSeeds } from '../../../../src/lab/schedule/explore.ts';
import type { Scheduler } from '../../../../src/lab/schedule/scheduler.ts';
import { KvmSession, PAGE, READ_WRITE } from '../../kvm-session.ts';

const BASE = 0x4000_0000;
/** What the guest has in a page while it is its own, and what it puts there before it shares it. */
const SECRET = 0x5e;
const PUBLIC = 0x11;
const HOSTS = 0x22;
const ROUNDS = 3;

async function start() {
  const session = await KvmSession.start({ inPlaceConversion: true }, false, { hypervisor: 'pkvm' });
  const { task } = session;
  const vm = await session.createVm(KVM_VM_TYPE.ARM_PROTECTED);
  const file = await session.createFile(vm, 2, GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED);
  const memory = await task.mmap({ lengthBytes: 2 * PAGE, prot: READ_WRITE, flags: MAP.SHARED, fd: file });
  await session.setRegion(vm, {
    slot: 0,
    flags: KVM_MEM.GUEST_MEMFD,
    guest_phys_addr: BigInt(BASE),
    memory_size: BigInt(2 * PAGE),
    userspace_addr: BigInt(memory),
    guest_memfd: file,
  });
  const convert = (index: number, isPrivate: boolean) => {
    const attributes = isPrivate ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n;
    const request = { offset: BigInt(index * PAGE), size: BigInt(PAGE), attributes };
    return task.ioctl(file, KVM.SET_MEMORY_ATTRIBUTES2, KVM_MEMORY_ATTRIBUTES2.encode(request));
  };
  for (const index of [0, 1]) await convert(index, true);
  return { session, task, vm, memory, convert };
}

/** Loads or undefined, where user space has no access. */
async function tolerating<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof UserFault || error instanceof KernelError) return undefined;
    throw error;
  }
}

/** Returns what user space saw. */
async function race(scheduler: Scheduler, userConverts: boolean): Promise<ReadonlySet<number>> {
  const { session, task, vm, memory, convert } = await start();
  const { kernel, machine } = session.host;
  const log = { refused: 0, lost: 0, done: 0 };

  function* script(index: number, cpu: Parameters<typeof sharePages>[0]): GuestFlow {
    const gpa = BASE + index * PAGE;
    for (let round = 0; round < ROUNDS; round++) {
      yield* cpu.write(gpa, Uint8Array.of(SECRET));
      if ((yield* cpu.read(gpa, 1))[0] !== SECRET) log.lost++;
      yield* cpu.write(gpa, Uint8Array.of(PUBLIC));
      if ((yield* sharePages(cpu, gpa)) !== SMCCC.success) throw new Error('sharing was refused');
      const [seen = 0] = yield* cpu.read(gpa, 1);
      if (seen !== PUBLIC && seen !== HOSTS) log.lost++;
      for (;;) {
        yield* cpu.interrupt();
        if ((yield* unsharePages(cpu, gpa)) === SMCCC.success) break;
        log.refused++;
      }
    }
    log.done++;
  }

  const runners = [
    await session.runner(vm, (cpu) => script(0, cpu), 0),
    await session.runner(vm, (cpu) => script(1, cpu), 1),
  ];
  kernel.schedule = scheduler.point;
  for (const [i, runner] of runners.entries()) {
    const thread = task.thread(i + 1);
    scheduler.start(`vcpu ${i}`, () => tolerating(() => thread.ioctl(runner.fd, KVM.RUN)));
  }
  const seen = new Set<number>();
  scheduler.start('user', async () => {
    for (let i = 0; i < 12; i++) {
      const at = memory + (i % 2) * PAGE;
      const bytes = await tolerating(() => task.load(at, 1));
      if (bytes !== undefined) seen.add(bytes[0]!);
      await tolerating(() => task.store(at, Uint8Array.of(HOSTS)));
      if (userConverts && i % 4 === 3) await tolerating(() => convert(i % 2, i % 8 === 3));
      await kernel.schedule?.('user');
    }
  });
  await scheduler.run();
  kernel.schedule = null;

  expect(seen).not.toContain(SECRET);
  expect(log.lost).toBe(0);
  if (!userConverts) expect(log.done).toBe(2);
  const { table, ownership } = machine.hypervisor as PkvmHypervisor;
  for (const { stage2 } of table.vms()) {
    for (const { pfn, state } of stage2.leaves()) {
      const isHidden = ownership.states.host(pfn) === PAGE_STATE.NOPAGE;
      expect(isHidden).toBe(state === PAGE_STATE.OWNED);
    }
  }
  await task.exit();
  expect([...ownership.states.touched()]).toEqual([]);
  expect(session.leaks().pages).toBe(0);
  return seen;
}

describe('a protected guest and user space in many orders', () => {
  it('lets user space see what is shared only, and loses nothing', async () => {
    const seen = new Set<number>();
    await exploreSeeds(40, async (scheduler) => {
      for (const byte of await race(scheduler, false)) seen.add(byte);
    });
    expect(seen).toContain(PUBLIC);
    expect(seen).toContain(HOSTS);
  });

  it('never shows the guest’s own bytes when user space converts behind its back', () =>
    exploreSeeds(40, async (scheduler) => {
      await race(scheduler, true);
    }));
});
