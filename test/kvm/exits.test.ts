import { describe, expect, it } from 'vitest';
import { KVM_CAP } from '../../src/abi/kvm/capabilities.ts';
import { KVM_HC_MAP_GPA_RANGE, KVM_RUN_EXIT } from '../../src/abi/kvm/exits.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_MEM } from '../../src/abi/kvm/structs.ts';
import type { GuestCpu, GuestException, GuestFlow } from '../../src/lab/guest/flow.ts';
import { KvmSession, PAGE, type Runner, refusal } from './kvm-session.ts';

const NOWHERE = 0xd000_0000;

/** A VM with one page of memory at 0 and a vCPU. */
async function guest(
  script: (cpu: GuestCpu) => GuestFlow,
  prepare?: (session: KvmSession, vm: number) => Promise<unknown>,
) {
  const session = await KvmSession.start();
  const vm = await session.createVm();
  await session.sharedSlot(vm, 0, 0, 1);
  await prepare?.(session, vm);
  const runner = await session.runner(vm, script);
  return { session, vm, runner };
}

async function answerMmio(runner: Runner, bytes: Uint8Array): Promise<void> {
  await runner.answer(KVM_RUN_EXIT.MMIO.offsets.data, bytes);
}

describe('exits to user space', () => {
  it('are MMIO where no slot is, eight bytes at a time', async () => {
    let read: Uint8Array = new Uint8Array();
    const { runner } = await guest(function* (cpu) {
      yield* cpu.write(NOWHERE, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
      read = yield* cpu.read(NOWHERE + 0x10, 12);
    });
    const parts: unknown[] = [];
    for (let i = 0; i < 4; i++) {
      expect(await runner.run()).toBe('MMIO');
      const { phys_addr, len, is_write, data } = await runner.exit(KVM_RUN_EXIT.MMIO);
      parts.push([Number(phys_addr) - NOWHERE, len, is_write, [...data.slice(0, is_write ? len : 0)]]);
      if (is_write === 0) await answerMmio(runner, new Uint8Array(8).fill(0x60 + i));
    }
    expect(parts).toEqual([
      [0, 8, 1, [1, 2, 3, 4, 5, 6, 7, 8]],
      [8, 2, 1, [9, 10]],
      [0x10, 8, 0, []],
      [0x18, 4, 0, []],
    ]);
    expect(await runner.run()).toBe('HLT');
    expect([...read]).toEqual([...new Array(8).fill(0x62), ...new Array(4).fill(0x63)]);
  });

  it('are MMIO for writes to a slot that is read-only', async () => {
    const { session, runner } = await guest(
      function* (cpu) {
        yield* cpu.read(0x10_0000, 4);
        yield* cpu.write(0x10_0000, Uint8Array.of(1));
      },
      async (session, vm) => {
        const userspace_addr = BigInt(await session.anonymous(1));
        const memory_size = BigInt(PAGE);
        const slot = { slot: 1, guest_phys_addr: 0x10_0000n, memory_size, userspace_addr };
        await session.setRegion(vm, { ...slot, flags: KVM_MEM.READONLY });
      },
    );
    expect(await runner.run()).toBe('MMIO');
    expect(await runner.exit(KVM_RUN_EXIT.MMIO)).toMatchObject({
      phys_addr: 0x10_0000n,
      is_write: 1,
      len: 1,
    });
    expect(await runner.run()).toBe('HLT');
    await session.task.exit();
  });

  it('are internal errors where there is nothing to emulate', async () => {
    const crossing = await guest(function* (cpu) {
      yield* cpu.read(NOWHERE + PAGE - 1, 2);
    });
    expect(await crossing.runner.run()).toBe('INTERNAL_ERROR');
    expect(await crossing.runner.exit(KVM_RUN_EXIT.INTERNAL_ERROR)).toMatchObject({ suberror: 1 });

    const delivering = await guest(function* (cpu) {
      yield* cpu.deliverThrough(NOWHERE + 0xe0);
    });
    expect(await delivering.runner.run()).toBe('INTERNAL_ERROR');
    const { suberror, data } = await delivering.runner.exit(KVM_RUN_EXIT.INTERNAL_ERROR);
    expect([suberror, data[3]]).toEqual([3, BigInt(NOWHERE + 0xe0)]);

    const session = await KvmSession.start();
    const runner = await session.runner(await session.createVm(), function* () {});
    expect(await runner.run()).toBe('INTERNAL_ERROR');
  });

  it('are hypercalls that user space asked for', async () => {
    const answers: bigint[] = [];
    const script = function* (cpu: GuestCpu): GuestFlow {
      answers.push(yield* cpu.mapGpaRange(0x1000, 2, true));
      answers.push(yield* cpu.mapGpaRange(0x1001, 2, true));
      answers.push(yield* cpu.mapGpaRange(0x1000, 0, true));
      answers.push(yield* cpu.hypercall(99));
    };
    const asked = await guest(script, (session, vm) =>
      session.enableCap(vm, KVM_CAP.EXIT_HYPERCALL, 1n << BigInt(KVM_HC_MAP_GPA_RANGE)),
    );
    expect(await asked.runner.run()).toBe('HYPERCALL');
    const { nr, args, flags } = await asked.runner.exit(KVM_RUN_EXIT.HYPERCALL);
    expect([nr, args.slice(0, 3), flags]).toEqual([12n, [0x1000n, 2n, 0x10n], 1n]);
    await asked.runner.answer(KVM_RUN_EXIT.HYPERCALL.offsets.ret, Uint8Array.of(7, 0, 0, 0, 0, 0, 0, 0));
    expect(await asked.runner.run()).toBe('HLT');
    expect(answers.splice(0).map((value) => BigInt.asIntN(64, value))).toEqual([7n, -22n, -22n, -1000n]);

    const unasked = await guest(script);
    expect(await unasked.runner.run()).toBe('HLT');
    expect(answers.map((value) => BigInt.asIntN(64, value))).toEqual([-1000n, -1000n, -1000n, -1000n]);
  });

  it('are a shutdown for a triple fault', async () => {
    const { runner } = await guest(function* (cpu) {
      yield* cpu.tripleFault();
    });
    expect(await runner.run()).toBe('SHUTDOWN');
  });

  it('are none for MSRs: they read back what was written, and others fault', async () => {
    const seen: unknown[] = [];
    const { runner } = await guest(function* (cpu) {
      yield* cpu.wrmsr(0xc000_0102, 0x1234_5678_9abc_def0n);
      seen.push(yield* cpu.rdmsr(0xc000_0102), yield* cpu.rdmsr(0x1b));
      for (const access of [cpu.rdmsr(0x9999), cpu.wrmsr(0x9999, 0n), cpu.technology('pvalidate', 4)]) {
        try {
          yield* access;
        } catch (error) {
          seen.push((error as GuestException).vector);
        }
      }
    });
    expect(await runner.run()).toBe('HLT');
    expect(seen).toEqual([0x1234_5678_9abc_def0n, 0xfee0_0800n, 13, 13, 6]);
  });
});

describe('KVM_RUN', () => {
  it('shows user space nothing of the last port access when the guest reads a port', async () => {
    const { session, runner } = await guest(function* (cpu) {
      yield* cpu.out(0x60, 0x33);
      yield* cpu.in(0x61);
    });
    expect(await runner.run()).toBe('IO');
    expect(await session.task.load(runner.page + PAGE, 1)).toEqual(Uint8Array.of(0x33));
    expect(await runner.run()).toBe('IO');
    expect(await session.task.load(runner.page + PAGE, 1)).toEqual(Uint8Array.of(0));
  });

  it('ends with EINTR for immediate_exit, after completing the last exit', async () => {
    let got = 0;
    const { session, runner } = await guest(function* (cpu) {
      got = yield* cpu.in(0x60);
    });
    expect(await runner.run()).toBe('IO');
    await session.task.store(runner.page + PAGE, Uint8Array.of(9));
    await session.task.store(runner.page + 1, Uint8Array.of(1));
    expect(await refusal(runner.run())).toBe('EINTR immediate-exit');
    // The guest has not run, and nothing is reported.
    expect(await runner.reason()).toBe('IO');
    await session.task.store(runner.page + PAGE, Uint8Array.of(1));
    await session.task.store(runner.page + 1, Uint8Array.of(0));
    expect(await runner.run()).toBe('HLT');
    expect(got).toBe(9);
  });

  it('ends with EINTR for a signal, before the guest goes on', async () => {
    let steps = 0;
    const { session, runner } = await guest(function* (cpu) {
      for (;;) {
        yield* cpu.interrupt();
        if (++steps === 3) session.task.signal();
      }
    });
    expect(await refusal(runner.run())).toBe('EINTR interrupted');
    expect(await runner.reason()).toBe('INTR');
    expect(steps).toBe(3);
  });

  it('sleeps while a guest halts whose interrupts the kernel makes', async () => {
    const { session, runner } = await guest(
      function* (cpu) {
        yield* cpu.hlt();
        yield* cpu.out(1, 1);
      },
      (session, vm) => session.task.ioctl(vm, KVM.CREATE_IRQCHIP),
    );
    const running = runner.run();
    await new Promise((resolve) => setImmediate(resolve));
    runner.vcpu.wake();
    expect(await running).toBe('IO');
    const sleeping = refusal(runner.run());
    await new Promise((resolve) => setImmediate(resolve));
    session.task.signal();
    expect(await sleeping).toBe('EINTR interrupted');
  });

  it('stops when the VM breaks, also a vCPU that sleeps', async () => {
    const { session, vm, runner } = await guest(
      function* (cpu) {
        yield* cpu.hlt();
      },
      (session, vm) => session.task.ioctl(vm, KVM.CREATE_IRQCHIP),
    );
    const sleeping = refusal(runner.run());
    await new Promise((resolve) => setImmediate(resolve));
    session.vm(vm).bug('a test says so');
    expect(await sleeping).toBe('EIO vm-bugged');
  });

  it('lets vCPUs take turns when guests are preempted and tasks are scheduled', async () => {
    const { session, vm, runner } = await guest(function* (cpu) {
      for (let i = 0; i < 4; i++) yield* cpu.write(0, Uint8Array.of(i));
      order.push(0);
    });
    const order: number[] = [];
    const second = await session.runner(
      vm,
      function* (cpu) {
        for (let i = 0; i < 2; i++) yield* cpu.write(8, Uint8Array.of(i));
        order.push(1);
      },
      1,
    );
    session.kvmHost.guests.budget = 1;
    const points: string[] = [];
    session.host.kernel.schedule = async (where) => {
      points.push(where);
    };
    await Promise.all([runner.run(), second.run()]);
    expect(order).toEqual([1, 0]);
    expect(points.filter((point) => point === 'vcpu-run').length).toBeGreaterThan(6);
  });

  it('follows its thread from processor to processor', async () => {
    const { session, runner } = await guest(function* (cpu) {
      yield* cpu.out(1, 1);
      yield* cpu.out(1, 1);
    });
    await runner.run();
    expect(runner.vcpu.cpu).toBe(0);
    session.task.cpu = 2;
    await runner.run();
    expect(runner.vcpu.cpu).toBe(2);
    expect(runner.vcpu.lp.index).toBe(2);
  });
});
