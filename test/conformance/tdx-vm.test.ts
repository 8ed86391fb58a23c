/** The cases of the posted TDX selftests that are about one TD's exits, restated. */
import { expect } from 'vitest';
import { KVM_EXIT_IO, KVM_RUN_EXIT, KVM_SYSTEM_EVENT } from '../../src/abi/kvm/exits.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_MSR_FILTER, KVM_MSR_FILTER_FLAG } from '../../src/abi/kvm/structs.ts';
import { R10, R11, R12, R13, R14 } from '../../src/abi/registers.ts';
import { EXIT } from '../../src/abi/vm-exit.ts';
import { writeUnion } from '../../src/vmm/vm/guest-vcpu.ts';
import { tdCapabilities } from '../../src/vmm/vm/td-commands.ts';
import { withBuffer } from '../../src/vmm/vm/user-memory.ts';
import type { Kit } from './kits/kit.ts';
import { initWithCpuid } from './kits/tdx-kit.ts';
import { type Exit, say, TestVm } from './kits/test-vm.ts';
import { filled } from './session.ts';
import { conformance } from './suite.ts';

const SHARED = 1n << 47n;
const DEVICE = 0xd000_0000n;
const SUCCESS = 0n;
const INVALID_OPERAND = 0x8000_0000_0000_0000n;
const SUBFUNC_UNSUPPORTED = 0x8000_0000_0000_0003n;
const CALL = {
  getTdVmCallInfo: 0x1_0000n,
  getQuote: 0x1_0002n,
  reportFatalError: 0x1_0003n,
  setupEventNotify: 0x1_0004n,
} as const;
const MSR = {
  tsc: 0x10n,
  apicBase: 0x1bn,
  featureControl: 0x3an,
  miscEnable: 0x1a0n,
  powerControl: 0x1fcn,
  icr: 0x830n,
  efer: 0xc000_0080n,
} as const;

type Operands = readonly [func: bigint, r12?: bigint, r13?: bigint, r14?: bigint, r15?: bigint];

/** A TD that makes calls one after the other; what came back of each is in `answers`. */
async function calling(
  kit: Kit,
  calls: readonly Operands[],
): Promise<{ vm: TestVm; answers: BigUint64Array[] }> {
  const vm = await TestVm.start(kit);
  const answers: BigUint64Array[] = [];
  vm.script(function* (cpu) {
    for (const operands of calls) answers.push((yield* cpu.vmcall(...operands)).slice());
    yield* say(cpu, 1);
  });
  return { vm, answers };
}

/** Calls that the kernel answers by itself; the status of each. */
async function statuses(kit: Kit, calls: readonly Operands[]): Promise<bigint[]> {
  const { vm, answers } = await calling(kit, calls);
  expect(await vm.listen()).toBe(1);
  await vm.end();
  return answers.map((q) => q[R10]!);
}

async function answer(vm: TestVm, { union }: Exit): Promise<void> {
  await writeUnion(vm.vm, vm.vm.vcpus[0]!, union);
}

const SIZES = [1, 2, 4, 8] as const;
const VALUE = 0x1122_3344_5566_7788n;

function lowBytes(size: number): Uint8Array {
  return new Uint8Array(BigUint64Array.of(VALUE).buffer).subarray(0, size);
}

conformance('tdx_vm_tests', {
  async lifecycle(kit) {
    const vm = await TestVm.start(kit);
    vm.script((cpu) => say(cpu, 1));
    expect(await vm.listen()).toBe(1);
    await vm.end();
  },

  async report_fatal_error(kit) {
    const error = 0x0baa_aaad_0000_0000n;
    const { vm } = await calling(kit, [[CALL.reportFatalError, error, 0n]]);
    const { name, union } = await vm.run();
    expect(name).toBe('SYSTEM_EVENT');
    const { type, ndata, data } = KVM_RUN_EXIT.SYSTEM_EVENT.decode(union);
    expect([type, ndata, data[12], data[13]]).toEqual([KVM_SYSTEM_EVENT.TDX_FATAL, 16, error, 0n]);
    await vm.end();
  },

  async ioexit(kit) {
    const port = 0x50;
    const vm = await TestVm.start(kit);
    vm.script(function* (cpu) {
      yield* cpu.out(port, 7);
      yield* say(cpu, yield* cpu.in(port));
    });
    const written = KVM_RUN_EXIT.IO.decode((await vm.run()).union);
    expect(written).toMatchObject({ direction: KVM_EXIT_IO.OUT, size: 1, port, count: 1 });
    const read = KVM_RUN_EXIT.IO.decode((await vm.run()).union);
    expect(read).toMatchObject({ direction: KVM_EXIT_IO.IN, size: 1, port, count: 1 });
    const data = vm.vm.vcpus[0]!.runAddress + Number(read.data_offset);
    await vm.task.store(data, Uint8Array.of(8));
    expect(await vm.listen()).toBe(8);
    await vm.end();
  },

  async cpuid(kit) {
    const maxIds = 4;
    for (const xfam of [X87_SSE, X87_SSE | AVX]) {
      const configured: Kit = {
        ...kit,
        async init(vm) {
          const { cpuid } = await tdCapabilities(vm.calls, vm.fd);
          const mask = cpuid.find((entry) => entry.function === 1)!;
          expect(mask.ebx & MAX_IDS).toBe(MAX_IDS);
          const entry = { ...mask, eax: 0, ebx: maxIds << 16, ecx: 0, edx: 0 };
          await initWithCpuid(vm, [entry], xfam);
        },
      };
      const vm = await TestVm.start(configured);
      let ebx = 0;
      let ecx = 0;
      vm.script(function* (cpu) {
        [, ebx, ecx] = yield* cpu.cpuid(1);
        yield* say(cpu, 1);
      });
      expect(await vm.listen()).toBe(1);
      expect(ecx & SSE3).toBe(SSE3);
      expect((ecx & FMA) !== 0).toBe((xfam & AVX) !== 0n);
      expect((ebx >>> 8) & 0xff).toBe(8);
      expect((ebx & MAX_IDS) >>> 16).toBe(maxIds);
      expect(ebx >>> 24).toBe(0);
      await vm.end();
    }
  },

  async get_td_vmcall_info(kit) {
    const { vm, answers } = await calling(kit, [
      [CALL.getTdVmCallInfo, 0n],
      [CALL.getTdVmCallInfo, 1n],
      [CALL.getTdVmCallInfo, 2n],
    ]);
    const exit = await vm.run();
    expect(exit.name).toBe('TDX');
    const info = KVM_RUN_EXIT.TDX_GET_TDVMCALL_INFO;
    expect(info.decode(exit.union)).toMatchObject({
      flags: 0n,
      nr: CALL.getTdVmCallInfo,
      ret: SUCCESS,
      leaf: 1n,
    });
    info.patch(exit.union, { r11: 2n, r12: 3n, r13: 4n, r14: 5n });
    await answer(vm, exit);
    expect(await vm.listen()).toBe(1);
    const seen = answers.map((q) => [q[R10], q[R11], q[R12], q[R13], q[R14]]);
    expect(seen.slice(0, 2)).toEqual([
      [SUCCESS, 0n, 0n, 0n, 0n],
      [SUCCESS, 2n, 3n, 4n, 5n],
    ]);
    expect(seen[2]![0]).toBe(INVALID_OPERAND);
    await vm.end();
  },

  async guest_writes(kit) {
    const { vm, answers } = await calling(kit, [
      ...SIZES.map((size) => mmio(size, true)),
      mmio(5, true),
      [BigInt(EXIT.EPT_VIOLATION), 4n, 1n, DEVICE, VALUE],
    ]);
    for (const size of SIZES) {
      const { name, union } = await vm.run();
      const { phys_addr, len, is_write, data } = KVM_RUN_EXIT.MMIO.decode(union);
      expect([name, phys_addr, len, is_write]).toEqual(['MMIO', DEVICE, size, 1]);
      expect(data.subarray(0, size)).toEqual(lowBytes(size));
    }
    expect(await vm.listen()).toBe(1);
    expect(answers.map((q) => q[R10])).toEqual([
      ...SIZES.map(() => SUCCESS),
      INVALID_OPERAND,
      INVALID_OPERAND,
    ]);
    await vm.end();
  },

  async guest_reads(kit) {
    const { vm, answers } = await calling(kit, [...SIZES.map((size) => mmio(size, false)), mmio(5, false)]);
    for (const size of SIZES) {
      const exit = await vm.run();
      const { phys_addr, len, is_write } = KVM_RUN_EXIT.MMIO.decode(exit.union);
      expect([exit.name, phys_addr, len, is_write]).toEqual(['MMIO', DEVICE, size, 0]);
      const data = filled(8, 0xff);
      data.set(lowBytes(size));
      KVM_RUN_EXIT.MMIO.patch(exit.union, { data });
      await answer(vm, exit);
    }
    expect(await vm.listen()).toBe(1);
    expect(answers.map((q) => q[R10])).toEqual([...SIZES.map(() => SUCCESS), INVALID_OPERAND]);
    const values = SIZES.map((size) => BigInt.asUintN(8 * size, VALUE));
    expect(answers.slice(0, SIZES.length).map((q) => q[R11])).toEqual(values);
    await vm.end();
  },

  async guest_hlt(kit) {
    const vm = await TestVm.start(kit);
    vm.script(function* (cpu) {
      yield* cpu.hlt();
    });
    const running = vm.run();
    await new Promise((resolve) => setImmediate(resolve));
    vm.task.signal();
    expect(await running).toMatchObject({ name: 'INTR', errno: 'EINTR' });
    await vm.end();
  },

  async msr_reads(kit) {
    const read = (msr: bigint): Operands => [BigInt(EXIT.RDMSR), msr];
    const { icr, miscEnable, apicBase, featureControl, efer, tsc } = MSR;
    const known = [icr, miscEnable, apicBase, featureControl, efer];
    expect(await statuses(kit, [...known, tsc, 0x9999n].map(read))).toEqual([
      ...known.map(() => SUCCESS),
      INVALID_OPERAND,
      INVALID_OPERAND,
    ]);
  },

  async msr_writes(kit) {
    const write = (msr: bigint): Operands => [BigInt(EXIT.WRMSR), msr, 0x77n];
    const { icr, powerControl, apicBase, featureControl, efer, tsc } = MSR;
    const refusedOnes = [apicBase, featureControl, efer, tsc, 0x9999n];
    expect(await statuses(kit, [powerControl, icr, ...refusedOnes].map(write))).toEqual([
      SUCCESS,
      SUCCESS,
      ...refusedOnes.map(() => INVALID_OPERAND),
    ]);
  },

  async msr_filter(kit) {
    const { miscEnable, powerControl, icr, apicBase } = MSR;
    const calls = [EXIT.RDMSR, EXIT.WRMSR].flatMap((reason) =>
      [miscEnable, powerControl, icr, apicBase].map((msr): Operands => [BigInt(reason), msr, 0x77n]),
    );
    const { vm, answers } = await calling(kit, calls);
    await withBuffer(vm.task, filled(8, 0xff), async (bitmap) => {
      const one = { nmsrs: 1, pad: 0, bitmap: BigInt(bitmap) };
      const ranges = [
        { ...one, flags: KVM_MSR_FILTER_FLAG.READ, base: Number(miscEnable) },
        { ...one, flags: KVM_MSR_FILTER_FLAG.WRITE, base: Number(powerControl) },
      ];
      const filter = KVM_MSR_FILTER.encode({ flags: KVM_MSR_FILTER_FLAG.DEFAULT_DENY, ranges });
      await vm.task.ioctl(vm.vm.fd, KVM.X86_SET_MSR_FILTER, filter);
    });
    expect(await vm.listen()).toBe(1);
    // Registers of the local APIC are never filtered.
    const isAllowed = [true, false, true, false, false, true, true, false];
    expect(answers.map((q) => q[R10] === SUCCESS)).toEqual(isAllowed);
    for (const q of answers) expect([SUCCESS, INVALID_OPERAND]).toContain(q[R10]);
    await vm.end();
  },

  async get_quote(kit) {
    const at = 0x4000_0000n;
    const { vm, answers } = await calling(kit, [
      [CALL.getQuote, at, 0x2000n],
      [CALL.getQuote, at | SHARED, 0x2000n],
      [CALL.getQuote, at | SHARED, 0x3000n],
    ]);
    const exit = await vm.run();
    expect(exit.name).toBe('TDX');
    const expected = { flags: 0n, nr: CALL.getQuote, ret: SUBFUNC_UNSUPPORTED, gpa: at, size: 0x2000n };
    expect(KVM_RUN_EXIT.TDX_GET_QUOTE.decode(exit.union)).toEqual(expected);
    KVM_RUN_EXIT.TDX_GET_QUOTE.patch(exit.union, { ret: SUCCESS });
    await answer(vm, exit);
    // A user space that does not know the call leaves the kernel's answer.
    const second = await vm.run();
    expect(KVM_RUN_EXIT.TDX_GET_QUOTE.decode(second.union).size).toBe(0x3000n);
    expect(await vm.listen()).toBe(1);
    expect(answers.map((q) => q[R10])).toEqual([INVALID_OPERAND, SUCCESS, SUBFUNC_UNSUPPORTED]);
    await vm.end();
  },

  async setup_event_notify(kit) {
    const vectors = [31n, 32n, 255n, 256n];
    const { vm, answers } = await calling(
      kit,
      vectors.map((vector): Operands => [CALL.setupEventNotify, vector]),
    );
    for (const vector of [32n, 255n]) {
      const exit = await vm.run();
      const notify = KVM_RUN_EXIT.TDX_SETUP_EVENT_NOTIFY;
      expect(exit.name).toBe('TDX');
      expect(notify.decode(exit.union)).toMatchObject({ nr: CALL.setupEventNotify, vector });
      notify.patch(exit.union, { ret: SUCCESS });
      await answer(vm, exit);
    }
    expect(await vm.listen()).toBe(1);
    expect(answers.map((q) => q[R10])).toEqual([INVALID_OPERAND, SUCCESS, SUCCESS, INVALID_OPERAND]);
    await vm.end();
  },
});

/** CPUID 1: ECX bits 0 and 12, EBX bits 23:16. */
const SSE3 = 1;
const FMA = 1 << 12;
const MAX_IDS = 0xff << 16;
/** XFAM: FMA comes with AVX. */
const X87_SSE = 3n;
const AVX = 4n;

/** A device's register in shared memory, as a #VE handler asks for it. */
function mmio(size: number, isWrite: boolean): Operands {
  return [BigInt(EXIT.EPT_VIOLATION), BigInt(size), isWrite ? 1n : 0n, DEVICE | SHARED, VALUE];
}
