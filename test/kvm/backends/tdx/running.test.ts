/** Running vCPUs: exits that are no TDVMCALLs, busy operands, processors that vCPUs move between. */
import { describe, expect, it } from 'vitest';
import { KernelError } from '../../../../src/abi/errno.ts';
import { KVM_EXIT, KVM_INTERNAL_ERROR, KVM_RUN_EXIT } from '../../../../src/abi/kvm/exits.ts';
import { KVM } from '../../../../src/abi/kvm/ioctl.ts';
import { TDG, TDH } from '../../../../src/abi/leaves.ts';
import { OPERAND } from '../../../../src/abi/operands.ts';
import { R8, R9, RAX, RCX } from '../../../../src/abi/registers.ts';
import { SW_STATUS, withOperand } from '../../../../src/abi/status.ts';
import { STATUS } from '../../../../src/abi/status-codes.ts';
import { MADV } from '../../../../src/abi/system-call-flags.ts';
import { EXIT } from '../../../../src/abi/vm-exit.ts';
import type { GuestException, GuestScript } from '../../../../src/lab/guest/flow.ts';
import type { TdxModule } from '../../../../src/module/tdx-module.ts';
import { account, type TdxTestHost, tdxHost } from './tdx-test-host.ts';
import { GUEST_MEMORY, UserTd } from './user-td.ts';

/** Has the calls of `leaf` answered by `answer`, as often as it gives a status; returns the processors that called. */
function force(host: TdxTestHost, leaf: number, answer: (call: number) => bigint | undefined): number[] {
  const cpus: number[] = [];
  host.machine.seam.fault = (lp) => {
    if ((lp.regs.d[2 * RAX]! & 0xffff) !== leaf) return undefined;
    cpus.push(lp.index);
    return answer(cpus.length - 1);
  };
  return cpus;
}

async function finalTd(host: TdxTestHost, vcpus = 1): Promise<UserTd> {
  const td = await UserTd.build(host, 16, vcpus);
  await td.finalize();
  return td;
}

/** A guest that goes back to user space again and again. */
const idle: GuestScript = function* (cpu) {
  for (;;) yield* cpu.vmcall(0x10003n);
};

describe('VP.ENTER', () => {
  it.each([
    ['a triple fault', STATUS.TDX_NON_RECOVERABLE_VCPU | BigInt(EXIT.TRIPLE_FAULT), KVM_EXIT.SHUTDOWN],
    ['a TD that is lost', STATUS.TDX_NON_RECOVERABLE_TD | 0n, KVM_EXIT.INTERNAL_ERROR],
    ['an entry that failed', STATUS.TDX_NON_RECOVERABLE_TD | 0x8000_0021n, KVM_EXIT.FAIL_ENTRY],
    ['a refusal', withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX), KVM_EXIT.INTERNAL_ERROR],
    ['no module', SW_STATUS.TDX_SEAMCALL_VMFAILINVALID, KVM_EXIT.INTERNAL_ERROR],
  ])('with %s ends KVM_RUN', async (_what, status, reason) => {
    const host = await tdxHost();
    const td = await finalTd(host);
    force(host, TDH.vpEnter, () => status);
    expect(await td.run()).toBe(reason);
    host.machine.seam.fault = null;
    const union = await td.union();
    if (reason === KVM_EXIT.INTERNAL_ERROR) {
      const { suberror, data } = KVM_RUN_EXIT.INTERNAL_ERROR.decode(union);
      expect([suberror, data[0]]).toEqual([KVM_INTERNAL_ERROR.UNEXPECTED_EXIT_REASON, status]);
    }
    if (reason === KVM_EXIT.FAIL_ENTRY) {
      expect(KVM_RUN_EXIT.FAIL_ENTRY.decode(union).hardware_entry_failure_reason).toBe(0x8000_0021n);
    }
    await td.exit();
    expect(account(host).leaked).toBe(0);
  });

  it('with a misconfigured EPT breaks the VM', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    force(host, TDH.vpEnter, () => BigInt(EXIT.EPT_MISCONFIGURATION));
    await expect(td.run()).rejects.toMatchObject({ errno: 'EIO' });
    host.machine.seam.fault = null;
    await td.exit();
  });

  it('is tried again while an operand is busy', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    td.script(0, idle);
    const busy = withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.TD_EPOCH);
    const cpus = force(host, TDH.vpEnter, (call) => (call < 3 ? busy : undefined));
    expect(await td.run()).toBe(KVM_EXIT.SYSTEM_EVENT);
    expect(cpus).toHaveLength(4);
    host.machine.seam.fault = null;
    await td.exit();
  });

  it('kills the VM of a guest that uses memory before it accepts it', async () => {
    const host = await tdxHost();
    const before = account(host);
    const td = await finalTd(host);
    td.script(0, function* (cpu) {
      yield* cpu.read(GUEST_MEMORY, 8);
    });
    await expect(td.run()).rejects.toMatchObject({ errno: 'EIO' });
    const lines = host.kernel.log.entries.map(({ code }) => code);
    expect(lines).toContain('access-before-accept');
    await td.exit();
    expect(account(host)).toEqual(before);
  });
});

describe('removing pages', () => {
  const RUN_AFTER = [TDH.memRangeBlock, TDH.memTrack, TDH.memPageRemove];

  it.each(RUN_AFTER)('makes call %i again, once, when its operand is busy', async (leaf) => {
    const host = await tdxHost();
    const before = account(host);
    const td = await finalTd(host);
    await td.preFault(GUEST_MEMORY, 1);
    const calls = force(host, leaf, (call) => (call === 0 ? STATUS.TDX_OPERAND_BUSY : undefined));
    await td.punch(GUEST_MEMORY, 1);
    host.machine.seam.fault = null;
    expect(calls).toHaveLength(2);
    expect(td.backend.td.vm.bugged).toBe(null);
    await td.exit();
    expect(account(host)).toEqual(before);
  });

  it.each(RUN_AFTER)('breaks the VM and leaks the page when call %i is busy twice', async (leaf) => {
    const host = await tdxHost();
    const td = await finalTd(host);
    await td.preFault(GUEST_MEMORY, 1);
    const calls = force(host, leaf, () => STATUS.TDX_OPERAND_BUSY);
    await td.punch(GUEST_MEMORY, 1);
    host.machine.seam.fault = null;
    expect(calls).toHaveLength(2);
    expect(td.backend.td.vm.bugged).not.toBe(null);
    expect(host.tdx.pages.leaked).toMatchObject([{ kind: 'guest', pages: 1 }]);
    await td.exit();
  });

  it('keeps vCPUs out while it makes a call again', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    td.script(0, idle);
    await td.preFault(GUEST_MEMORY, 1);
    const { td: domain } = td.backend;
    domain.waitsForZap = true;
    const entries = force(host, TDH.vpEnter, () => undefined);
    host.kernel.schedule = () => new Promise((resolve) => setImmediate(resolve));
    const running = td.run();
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(entries).toHaveLength(0);
    domain.waitsForZap = false;
    expect(await running).toBe(KVM_EXIT.SYSTEM_EVENT);
    host.kernel.schedule = null;
    host.machine.seam.fault = null;
    await td.exit();
  });

  it('finds a lock that somebody really holds', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    await td.preFault(GUEST_MEMORY, 2);
    const module = host.machine.seam.module as TdxModule;
    const entry = module.pamt.entry(td.backend.td.tdr, 0);
    expect(entry.tryLock('exclusive')).toBe(STATUS.TDX_SUCCESS);
    await td.punch(GUEST_MEMORY, 1);
    entry.unlock('exclusive');
    expect(td.backend.td.vm.bugged).toMatch(/TDX_OPERAND_BUSY/);
    await td.exit();
  });

  it('tracks one epoch for each page, or one for each zap', async () => {
    for (const [trackPer, tracks] of [
      ['page', 8],
      ['zap', 1],
    ] as const) {
      const host = await tdxHost({ tdx: { trackPer } });
      const td = await finalTd(host);
      await td.preFault(GUEST_MEMORY, 8);
      const calls = force(host, TDH.memTrack, () => undefined);
      await td.punch(GUEST_MEMORY, 8);
      host.machine.seam.fault = null;
      expect(calls).toHaveLength(tracks);
      await td.exit();
      expect(account(host).leaked).toBe(0);
    }
  });
});

describe('faults', () => {
  it('are tried again while the module is busy', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    for (const leaf of [TDH.memSeptAdd, TDH.memPageAug]) {
      const calls = force(host, leaf, (call) => (call < 2 ? STATUS.TDX_OPERAND_BUSY : undefined));
      await td.preFault(GUEST_MEMORY, 1);
      expect(calls.length).toBeGreaterThan(2);
      host.machine.seam.fault = null;
      if (leaf === TDH.memSeptAdd) await td.punch(GUEST_MEMORY, 1);
    }
    await td.exit();
    expect(account(host).leaked).toBe(0);
  });

  it('give pages to the TD on the processor of the thread', async () => {
    const host = await tdxHost();
    const td = await finalTd(host, 2);
    const cpus = force(host, TDH.memPageAug, () => undefined);
    td.script(1, function* (cpu) {
      yield* cpu.accept(GUEST_MEMORY);
    });
    await td.runToEnd(1);
    host.machine.seam.fault = null;
    expect(cpus).toEqual([1]);
    await td.exit();
  });
});

describe('shared memory', () => {
  it('where no slot is makes the guest take a #VE, from the first access on', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    const seen: unknown[] = [];
    td.script(0, function* (cpu) {
      for (let i = 0; i < 2; i++) {
        try {
          yield* cpu.read(0x1000_0000 + 2 ** 47, 4);
        } catch (error) {
          const info = yield* cpu.tdcall(TDG.vpVeinfoGet);
          seen.push([(error as GuestException).vector, info[RCX], info[R9]]);
        }
      }
      yield* cpu.vmcall(0x10003n);
    });
    expect(await td.run()).toBe(KVM_EXIT.SYSTEM_EVENT);
    const violation = [20, BigInt(EXIT.EPT_VIOLATION), BigInt(0x1000_0000 + 2 ** 47)];
    expect(seen).toEqual([violation, violation]);
    await td.exit();
    expect(account(host).leaked).toBe(0);
  });

  it('follows what user space does with its pages', async () => {
    const host = await tdxHost();
    const before = account(host);
    const td = await finalTd(host);
    await td.setPrivate(GUEST_MEMORY, 1, false);
    const at = GUEST_MEMORY + 2 ** 47;
    const seen: number[] = [];
    td.script(0, function* (cpu) {
      for (let i = 0; i < 2; i++) {
        seen.push((yield* cpu.read(at, 1))[0]!);
        yield* cpu.write(at, Uint8Array.of(9));
        yield* cpu.vmcall(0x10003n);
      }
    });
    await td.task.store(td.memory, Uint8Array.of(5));
    await td.run();
    expect((await td.task.load(td.memory, 1))[0]).toBe(9);
    await td.task.madvise(td.memory, 4096, MADV.DONTNEED);
    await td.run();
    expect(seen).toEqual([5, 0]);
    await td.exit();
    expect(account(host)).toEqual(before);
  });
});

describe('processors', () => {
  it('are left by VP.FLUSH when a thread moves', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    td.script(0, idle);
    const flushes = force(host, TDH.vpFlush, () => undefined);
    await td.run();
    td.vcpus[0]!.task.cpu = 3;
    await td.run();
    td.vcpus[0]!.task.cpu = 1;
    await td.run();
    await td.run();
    expect(flushes).toEqual([0, 3]);
    host.machine.seam.fault = null;
    await td.exit();
    expect(account(host).leaked).toBe(0);
  });

  it('are left when they go offline', async () => {
    const host = await tdxHost();
    const td = await finalTd(host, 2);
    td.script(1, idle);
    await td.run(1);
    const flushes = force(host, TDH.vpFlush, () => undefined);
    await host.kernel.cpuOffline(1);
    expect(flushes).toEqual([1]);
    // The thread goes on elsewhere.
    expect(await td.run(1)).toBe(KVM_EXIT.SYSTEM_EVENT);
    expect(td.vcpus[1]!.task.cpu).toBe(0);
    host.machine.seam.fault = null;
    await td.exit();
    expect(account(host).leaked).toBe(0);
  });

  it.each([
    ['page', 'tdx-blocked'],
    ['zap', 'tdx-tracked'],
  ] as const)('may go offline while pages are removed, tracked per %s', async (trackPer, point) => {
    const host = await tdxHost({ tdx: { trackPer } });
    const before = account(host);
    const td = await finalTd(host);
    await td.preFault(GUEST_MEMORY, 16);
    host.kernel.schedule = async (at) => {
      if (at === point && host.kernel.cpus[0]!.online) await host.kernel.cpuOffline(0);
    };
    await td.punch(GUEST_MEMORY, 16);
    host.kernel.schedule = null;
    expect(td.backend.td.vm.bugged).toBeNull();
    await td.exit();
    expect(account(host)).toEqual(before);
  });

  it('must be there in every package while TDs are', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    await host.kernel.cpuOffline(2);
    await expect(host.kernel.cpuOffline(3)).rejects.toMatchObject({ errno: 'EBUSY' });
    await td.exit();
    await host.kernel.cpuOffline(3);
  });
});

describe('interrupts', () => {
  it('are posted to the descriptor that the module was told of, and wake a vCPU that halts', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    const vcpu = td.backend.td.vm.vcpus.get(0)!;
    let woke = false;
    td.script(0, function* (cpu) {
      yield* cpu.vmcall(12n);
      woke = true;
      yield* cpu.vmcall(0x10003n);
    });
    const running = td.run();
    await new Promise((resolve) => setImmediate(resolve));
    expect(woke).toBe(false);
    td.backend.postInterrupt(vcpu, 0x41);
    expect(await running).toBe(KVM_EXIT.SYSTEM_EVENT);
    expect(woke).toBe(true);
    await td.exit();
  });

  it('that are NMIs are for the module to deliver', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    const written: bigint[] = [];
    host.machine.seam.fault = (lp) => {
      if ((lp.regs.d[2 * RAX]! & 0xffff) === TDH.vpWr) written.push(lp.regs.q[R8]!);
      return undefined;
    };
    td.backend.injectNmi(td.backend.td.vm.vcpus.get(0)!);
    expect(written).toEqual([1n]);
    host.machine.seam.fault = null;
    await td.exit();
  });
});

describe('a broken VM', () => {
  it('answers EIO to everything', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    td.backend.td.vm.bug('a test broke it');
    for (const call of [
      () => td.run(),
      () => td.task.ioctl(td.vm, KVM.CREATE_VCPU, 7),
      () => td.setPrivate(GUEST_MEMORY, 1, false),
    ]) {
      await expect(call()).rejects.toMatchObject({ errno: 'EIO' });
      await expect(call()).rejects.toBeInstanceOf(KernelError);
    }
    await td.exit();
  });
});
