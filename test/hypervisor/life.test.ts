/** Booting the hypervisor, making and tearing down VMs and vCPUs, running them. */
import { describe, expect, it } from 'vitest';
import { GIB, PAGE_2M, PAGE_4K } from '../../src/abi/address.ts';
import {
  DEFAULT_IPA_BITS,
  errnoOf,
  GUEST_CALL,
  HOST_CALL,
  HOST_VCPU_DATA,
  HOST_VM,
  SMCCC,
  signedRegister,
  X,
} from '../../src/abi/pkvm.ts';
import { EXIT } from '../../src/abi/vm-exit.ts';
import type { GuestContext, GuestExit } from '../../src/machine/guest-code.ts';
import { PkvmMachine, pkvmMachine } from '../support/pkvm-machine.ts';

const GFN = 0x100;
const CARVE_OUT = [(12 * GIB) / PAGE_4K, 1024] as const;
const HLT: GuestExit = { reason: EXIT.HLT, qualification: 0n, gpa: 0, instructionLengthBytes: 1 };

function errno(result: number | 'not supported'): string {
  return typeof result === 'string' ? result : result === 0 ? 'ok' : errnoOf(result);
}

describe('boot', () => {
  it('has init before finalise, and everything else after it', () => {
    const host = new PkvmMachine();
    expect(host.hvc(HOST_CALL.reserveVm)).toBe('not supported');
    expect(host.hvc(HOST_CALL.protFinalize)).toBe('not supported');
    expect(errno(host.hvc(HOST_CALL.pkvmInit, [(3 * GIB) / PAGE_4K, 1]))).toBe('EINVAL');
    expect(host.hvc(HOST_CALL.pkvmInit, CARVE_OUT)).toBe(0);
    expect(errno(host.hvc(HOST_CALL.pkvmInit, CARVE_OUT))).toBe('EPERM');
    expect(host.hvc(HOST_CALL.protFinalize)).toBe(0);
    expect(errno(host.hvc(HOST_CALL.protFinalize))).toBe('EPERM');
    expect(host.hvc(HOST_CALL.protFinalize, [], 1)).toBe(0);
    expect(host.hvc(HOST_CALL.pkvmInit, CARVE_OUT)).toBe('not supported');
    expect(host.hvc(0x1234)).toBe('not supported');
  });

  it('keeps the host out of the hypervisor’s memory', () => {
    const host = pkvmMachine();
    expect(() => host.load(CARVE_OUT[0])).toThrow(/stage 2/);
    expect(() => host.load(CARVE_OUT[0] + CARVE_OUT[1] - 1)).toThrow(/stage 2/);
    expect(host.load(CARVE_OUT[0] + CARVE_OUT[1])).toHaveLength(PAGE_4K);
  });

  it('raises #UD for HVC where no hypervisor is', () => {
    const { machine } = new PkvmMachine();
    machine.hypervisor = null;
    expect(() => machine.lps[0]!.hvc()).toThrow(/#UD/);
  });
});

describe('the host’s stage 2', () => {
  it('maps what the host touches in the largest blocks', () => {
    const host = pkvmMachine();
    const { hostStage2 } = host.ownership;
    host.load((5 * GIB) / PAGE_4K, 1);
    host.load((5 * GIB) / PAGE_4K + 1000, 1);
    expect(hostStage2.figures()).toMatchObject({ blocks1g: 1, blocks2m: 0, pages: 0 });
    expect(hostStage2.faults).toBe(1);
    // 1 GiB that the hypervisor has a part of comes in blocks of 2 MiB.
    host.load(CARVE_OUT[0] + 8192, 1);
    expect(hostStage2.figures()).toMatchObject({ blocks1g: 1, blocks2m: 1 });
  });

  it('splits the block around a page that goes, and maps the rest anew when it is used', () => {
    const host = pkvmMachine();
    const vm = host.createVm(true);
    const pfn = (7 * GIB + 5 * PAGE_2M) / PAGE_4K;
    host.store(pfn, Uint8Array.of(1));
    const before = host.ownership.hostStage2.figures();
    host.donate(vm, pfn + 3, GFN);
    expect(host.ownership.hostStage2.isMapped(pfn * PAGE_4K)).toBe(false);
    expect(host.load(pfn, 1)[0]).toBe(1);
    expect(() => host.load(pfn + 3, 1)).toThrow(/stage 2/);
    expect(() => host.load(pfn + 2, PAGE_4K + 1)).toThrow(/stage 2/);
    host.load(pfn + 512, 1);
    expect(host.ownership.hostStage2.figures()).toMatchObject({ blocks2m: before.blocks2m + 1 });
  });

  it('lets the host at devices', () => {
    const host = pkvmMachine();
    expect(host.load((3 * GIB) / PAGE_4K, 4)).toEqual(new Uint8Array(4).fill(0xff));
  });

  it('remembers no more than what was touched', () => {
    const host = pkvmMachine();
    const before = host.ownership.states.chunks;
    const vm = host.createVm(true);
    for (let i = 0; i < 64; i++) host.donate(vm, host.take(), GFN + i);
    expect(host.ownership.states.chunks - before).toBeLessThanOrEqual(2);
  });
});

describe('VMs and vCPUs', () => {
  it('need a description that the host has lent', () => {
    const host = pkvmMachine();
    const handle = host.hvc(HOST_CALL.reserveVm) as number;
    const page = host.take();
    const initVm = () => errno(host.hvc(HOST_CALL.initVm, [page, host.take(), host.take(2)]));
    const describeAs = (values: Parameters<typeof HOST_VM.encode>[0]) =>
      host.store(page, HOST_VM.encode(values));
    const good = { handle: BigInt(handle), vcpus: 1n, ipaBits: BigInt(DEFAULT_IPA_BITS), isProtected: 1n };
    expect(initVm()).toBe('EPERM');
    host.hvc(HOST_CALL.hostShareHyp, [page]);
    describeAs({ ...good, vcpus: 0n });
    expect(initVm()).toBe('EINVAL');
    describeAs({ ...good, ipaBits: 20n });
    expect(initVm()).toBe('EINVAL');
    describeAs({ ...good, handle: 7n });
    expect(initVm()).toBe('EINVAL');
    describeAs(good);
    expect(errno(host.hvc(HOST_CALL.initVm, [page, page, host.take(2)]))).toBe('ENOMEM');
    expect(errno(host.hvc(HOST_CALL.initVm, [page, host.take(), page]))).toBe('ENOMEM');
    expect(initVm()).toBe('ok');
    expect(initVm()).toBe('EEXIST');
    expect(errno(host.hvc(HOST_CALL.hostUnshareHyp, [page]))).toBe('EBUSY');
    expect(errno(host.hvc(HOST_CALL.unreserveVm, [handle]))).toBe('EINVAL');
  });

  it('give refused pages back at once', () => {
    const host = pkvmMachine();
    const vm = host.createVm(true);
    const state = host.take(2);
    host.store(state, Uint8Array.of(9));
    expect(errno(host.hvc(HOST_CALL.initVcpu, [vm.handle, host.take(), state]))).toBe('EINVAL');
    expect(host.load(state, 1)[0]).toBe(0);
    expect(errno(host.hvc(HOST_CALL.initVcpu, [0x55, host.take(), host.take(2)]))).toBe('ENOENT');
  });

  it('can be reserved until the table is full', () => {
    const host = pkvmMachine();
    const results = Array.from({ length: 256 }, () => host.hvc(HOST_CALL.reserveVm) as number);
    expect(results.filter((result) => result > 0)).toHaveLength(255);
    expect(errno(results.at(-1)!)).toBe('ENOMEM');
    expect(host.hvc(HOST_CALL.unreserveVm, [results[4]!])).toBe(0);
    expect(host.hvc(HOST_CALL.reserveVm)).toBe(results[4]);
  });

  it('load one vCPU on one processor at a time', () => {
    const host = pkvmMachine();
    const vm = host.createVm(true, 2);
    const load = (index: number, lp: number) => errno(host.hvc(HOST_CALL.vcpuLoad, [vm.handle, index], lp));
    expect(load(2, 0)).toBe('ENOENT');
    expect(load(0, 0)).toBe('ok');
    expect(load(1, 0)).toBe('EBUSY');
    expect(load(0, 1)).toBe('EBUSY');
    expect(load(1, 1)).toBe('ok');
    expect(errno(host.hvc(HOST_CALL.startTeardownVm, [vm.handle]))).toBe('EBUSY');
    expect(errno(host.hvc(HOST_CALL.vcpuPut, [], 0))).toBe('ok');
    expect(errno(host.hvc(HOST_CALL.vcpuPut, [], 0))).toBe('EINVAL');
    expect(errno(host.hvc(HOST_CALL.vcpuRun, [], 0))).toBe('EINVAL');
  });

  it.each([true, false])('are torn down to the last page, wiped (protected: %s)', (isProtected) => {
    const host = pkvmMachine();
    const vm = host.createVm(isProtected, 2);
    for (let i = 0; i < 3; i++) {
      const pfn = host.take();
      host.store(pfn, new Uint8Array(PAGE_4K).fill(0x5a));
      if (isProtected) host.donate(vm, pfn, GFN + i * 600);
      else host.share(vm, pfn, GFN + i * 600);
    }
    expect(errno(host.hvc(HOST_CALL.finalizeTeardownVm, [vm.handle]))).toBe('EBUSY');
    const returned = host.destroy(vm);
    expect(errno(host.hvc(HOST_CALL.startTeardownVm, [vm.handle]))).toBe('ENOENT');
    for (const pfn of returned)
      expect(
        host
          .load(pfn)
          .subarray(8)
          .every((byte) => byte === 0),
      ).toBe(true);
    expect([...host.ownership.states.touched()]).toEqual([]);
    const { start, end } = host.taken;
    for (let pfn = start; pfn < end; pfn++) expect(host.load(pfn, 1)).toHaveLength(1);
  });

  it('lose the pages of a guest that nobody reclaimed', () => {
    const host = pkvmMachine();
    const vm = host.createVm(true);
    const pfn = host.take();
    host.donate(vm, pfn, GFN);
    host.hvc(HOST_CALL.startTeardownVm, [vm.handle]);
    host.hvc(HOST_CALL.finalizeTeardownVm, [vm.handle]);
    expect(() => host.load(pfn)).toThrow(/stage 2/);
    expect(errno(host.hvc(HOST_CALL.forceReclaimGuestPage, [pfn, 1]))).toBe('EAGAIN');
  });

  it('believe no link of a list before the page is theirs', () => {
    const host = pkvmMachine();
    const [victim, vm] = [host.createVm(true), host.createVm(true)];
    const secret = host.take();
    host.donate(victim, secret, GFN);
    host.patchVcpu(vm, { memcacheHead: BigInt(secret * PAGE_4K), memcachePages: 1n });
    const result = host.loaded(vm, () => host.hvc(HOST_CALL.hostDonateGuest, [host.take(), GFN, 1]));
    expect(errno(result)).toBe('ENOMEM');
    expect(host.vcpu(victim).vm.stage2.leaf(GFN).pfn).toBe(secret);
  });
});

describe('a running vCPU', () => {
  function running(isProtected: boolean) {
    const host = pkvmMachine();
    const vm = host.createVm(isProtected);
    const run = (script: (context: GuestContext) => GuestExit) => {
      host.machine.guestCode = { run: script };
      expect(host.loaded(vm, () => host.hvc(HOST_CALL.vcpuRun))).toBe(0);
      return host.hostVcpu(vm);
    };
    return { host, vm, run };
  }

  it('begins with the registers that the host gave, and shows a protected one’s to nobody', () => {
    const { host, vm, run } = running(true);
    host.patchVcpu(vm, { regs: new Array(16).fill(5n), rip: 0x1000n });
    const seen: bigint[] = [];
    const page = run((context) => {
      seen.push(context.rip, context.regs.q[3]!);
      context.regs.q.fill(0x5ec2e7n);
      return HLT;
    });
    expect(seen).toEqual([0x1000n, 5n]);
    expect(page.regs.every((value) => value === 0n)).toBe(true);
    expect(page).toMatchObject({ rip: 0n, exitReason: BigInt(EXIT.HLT) });
    host.patchVcpu(vm, { regs: new Array(16).fill(7n), rip: 0n, skipInstruction: 1n });
    run((context) => {
      seen.push(context.rip, context.regs.q[3]!);
      return HLT;
    });
    expect(seen.slice(2)).toEqual([0x1001n, 0x5ec2e7n]);
  });

  it('shows all registers of one that is not protected, and takes them back', () => {
    const { host, vm, run } = running(false);
    const page = run((context) => {
      context.regs.q.fill(3n);
      return HLT;
    });
    expect(page.regs.every((value) => value === 3n)).toBe(true);
    host.patchVcpu(vm, { regs: new Array(16).fill(4n) });
    const seen: bigint[] = [];
    run((context) => {
      seen.push(...context.regs.q);
      return HLT;
    });
    expect(new Set(seen)).toEqual(new Set([4n]));
  });

  it('shows of a protected one’s port access what the host emulates, and takes only the answer', () => {
    const { host, vm, run } = running(true);
    const out: GuestExit = { ...HLT, reason: EXIT.IO };
    const page = run((context) => {
      context.regs.q.fill(9n);
      return out;
    });
    expect(page.regs.map((value, i) => (value === 9n ? i : -1)).filter((i) => i >= 0)).toEqual([0, 2]);
    host.patchVcpu(vm, { regs: new Array(16).fill(1n) });
    run((context) => {
      expect([context.regs.q[0], context.regs.q[2], context.regs.q[3]]).toEqual([1n, 9n, 9n]);
      return HLT;
    });
  });

  it('injects into a protected one only where the host answers for an instruction', () => {
    const { host, vm, run } = running(true);
    const events: (number | null)[] = [];
    const exits = [HLT, { ...HLT, reason: EXIT.RDMSR }, HLT];
    for (const exit of exits) {
      run((context) => {
        events.push(context.inject?.vector ?? null);
        context.inject = null;
        return exit;
      });
      host.patchVcpu(vm, { injectVector: 14n });
    }
    expect(events).toEqual([null, null, 13]);
  });

  it('hides what a protected one stores where it has no memory, unless it said that a device is there', () => {
    const { host, vm, run } = running(true);
    const gpa = 0x3000_0000;
    const store = (context: GuestContext): GuestExit => {
      const exit = context.translate(gpa, 'write') as GuestExit;
      return { ...exit, access: { isWrite: true, lengthBytes: 4, bytes: Uint8Array.of(1, 2, 3, 4) } };
    };
    const data = () => host.machine.lps[0]!.load(vm.vcpuPfns[0]! * PAGE_4K + HOST_VCPU_DATA.offset, 4);
    expect(run(store)).toMatchObject({ exitReason: 48n, exitGpa: BigInt(gpa), accessKind: 0n });
    expect([...data()]).toEqual([0, 0, 0, 0]);
    const guard = (context: GuestContext): GuestExit => {
      context.regs.q.fill(0n);
      context.regs.q[X.x0] = BigInt(GUEST_CALL.mmioGuard);
      context.regs.q[X.x1] = BigInt(gpa);
      const outcome = context.instruction('hvc', context.regs);
      return outcome === 'done' ? HLT : (outcome as GuestExit);
    };
    expect(run(guard)).toMatchObject({ exitReason: BigInt(EXIT.VMCALL), callNeeds: 3n });
    host.topUp(vm);
    expect(run(guard)).toMatchObject({ exitReason: BigInt(EXIT.HLT) });
    expect(run(store)).toMatchObject({ accessKind: 2n, accessLength: 4n });
    expect([...data()]).toEqual([1, 2, 3, 4]);
  });

  it.each([
    ['version', [GUEST_CALL.version], 0x1_0001],
    ['features', [GUEST_CALL.features], 0b1001_1101],
    ['meminfo', [GUEST_CALL.hypMeminfo], PAGE_4K],
    ['meminfo with an argument', [GUEST_CALL.hypMeminfo, 1], SMCCC.invalidParameter],
    ['share of an unaligned address', [GUEST_CALL.memShare, 0x1001], SMCCC.invalidParameter],
    ['share with a third argument', [GUEST_CALL.memShare, 0x1000, 0, 1], SMCCC.invalidParameter],
    ['unshare beyond the address width', [GUEST_CALL.memUnshare, 2 ** 41], SMCCC.invalidParameter],
  ])('answers a protected guest’s %s without the host', (_, registers, wanted) => {
    const { run } = running(true);
    const page = run((context) => {
      context.regs.q.fill(0n);
      for (const [i, value] of registers.entries()) context.regs.q[i] = BigInt(value);
      expect(context.instruction('hvc', context.regs)).toBe('done');
      expect(signedRegister(context.regs, X.x0)).toBe(wanted);
      return HLT;
    });
    expect(page.exitReason).toBe(BigInt(EXIT.HLT));
  });

  it('knows a fault on a page that was taken by force', () => {
    const { host, vm, run } = running(true);
    const pfn = host.take();
    host.donate(vm, pfn, GFN);
    host.hvc(HOST_CALL.forceReclaimGuestPage, [pfn, 1]);
    const inPoison = () => host.loaded(vm, () => host.hvc(HOST_CALL.vcpuInPoisonFault));
    expect(errno(inPoison())).toBe('EINVAL');
    run((context) => context.translate(GFN * PAGE_4K, 'read') as GuestExit);
    expect(inPoison()).toBe(1);
    run((context) => context.translate((GFN + 1) * PAGE_4K, 'read') as GuestExit);
    expect(inPoison()).toBe(0);
  });

  it('writes to pages lent for reading exit, until permissions are relaxed', () => {
    const { host, vm } = running(false);
    host.share(vm, host.take(), GFN, 1, 1);
    host.machine.guestCode = { run: (context) => context.translate(GFN * PAGE_4K, 'write') as GuestExit };
    host.loaded(vm, () => host.hvc(HOST_CALL.vcpuRun));
    expect(host.hostVcpu(vm)).toMatchObject({ exitReason: 48n, exitQualification: 2n });
    expect(host.loaded(vm, () => host.hvc(HOST_CALL.hostRelaxPermsGuest, [GFN, 2]))).toBe(0);
    expect(vm.hyp.stage2.leaf(GFN).prot).toBe(3);
    expect(host.hvc(HOST_CALL.hostWrprotectGuest, [vm.handle, GFN, 1])).toBe(0);
    expect(vm.hyp.stage2.leaf(GFN).prot).toBe(1);
  });
});
