/** TDVMCALLs as guest and user space see them. */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PAGE_2M, PAGE_4K } from '../../../../src/abi/address.ts';
import { ERRNO, KernelError } from '../../../../src/abi/errno.ts';
import { KVM_CAP } from '../../../../src/abi/kvm/capabilities.ts';
import { KVM_EXIT, KVM_RUN_EXIT, KVM_SYSTEM_EVENT } from '../../../../src/abi/kvm/exits.ts';
import { R10, R11, R12, R13, R14, R15 } from '../../../../src/abi/registers.ts';
import { type TdxTestHost, tdxHost } from './tdx-test-host.ts';
import { GUEST_MEMORY, UserTd } from './user-td.ts';

const SHARED = 1n << 47n;
const SUCCESS = 0n;
const RETRY = 1n;
const INVALID_OPERAND = 0x8000_0000_0000_0000n;
const ALIGN_ERROR = 0x8000_0000_0000_0002n;
const UNSUPPORTED = 0x8000_0000_0000_0003n;
const MAP_GPA = 0x10001n;

let host: TdxTestHost;
let td: UserTd;
beforeAll(async () => {
  host = await tdxHost();
});
beforeEach(async () => {
  td = await UserTd.build(host, 4);
  await td.finalize();
  return () => td.exit();
});

/** Makes one call in the guest; `user` answers the exits, each a reason. Returns R10 to R15. */
async function call(
  operands: readonly [func: bigint, r12?: bigint, r13?: bigint, r14?: bigint, r15?: bigint],
  user: (reason: number) => Promise<void> = async () => undefined,
): Promise<{ status: bigint; r11: bigint; r12: bigint; r13: bigint; r14: bigint; r15: bigint }> {
  let out: BigUint64Array | undefined;
  td.script(0, function* (cpu) {
    out = (yield* cpu.vmcall(...operands)).slice();
    yield* cpu.vmcall(0x10003n);
  });
  for (;;) {
    const reason = await td.run();
    if (reason === KVM_EXIT.SYSTEM_EVENT) break;
    await user(reason);
  }
  const q = out!;
  return { status: q[R10]!, r11: q[R11]!, r12: q[R12]!, r13: q[R13]!, r14: q[R14]!, r15: q[R15]! };
}

describe('ports', () => {
  it('go to user space and come back', async () => {
    const seen: unknown[] = [];
    const { status } = await call([30n, 2n, 1n, 0x3f8n, 0xabcdn], async (reason) => {
      const { direction, size, port } = KVM_RUN_EXIT.IO.decode(await td.union());
      seen.push([reason, direction, size, port, await td.task.load(td.vcpus[0]!.run + PAGE_4K, 2)]);
    });
    expect(seen).toEqual([[KVM_EXIT.IO, 1, 2, 0x3f8, new Uint8Array([0xcd, 0xab])]]);
    expect(status).toBe(SUCCESS);
    const read = await call([30n, 4n, 0n, 0x60n], () =>
      td.task.store(td.vcpus[0]!.run + PAGE_4K, new Uint8Array([1, 2, 3, 4])),
    );
    expect(read).toMatchObject({ status: SUCCESS, r11: 0x0403_0201n });
  });

  it.each([
    [3n, 0n],
    [8n, 0n],
    [1n, 2n],
  ])('of %i bytes in direction %i are none', async (size, direction) => {
    expect((await call([30n, size, direction, 0x60n])).status).toBe(INVALID_OPERAND);
  });
});

describe('MMIO', () => {
  const at = BigInt(0x1000_0000) | SHARED;

  it('goes to user space and comes back', async () => {
    const seen: unknown[] = [];
    await call([48n, 8n, 1n, at, 0x1122_3344_5566_7788n], async (reason) => {
      const { phys_addr, len, is_write, data } = KVM_RUN_EXIT.MMIO.decode(await td.union());
      seen.push([reason, phys_addr, len, is_write, data[7]]);
    });
    expect(seen).toEqual([[KVM_EXIT.MMIO, 0x1000_0000n, 8, 1, 0x11]]);
    const read = await call([48n, 1n, 0n, at], async () => {
      const union = await td.union();
      KVM_RUN_EXIT.MMIO.patch(union, { data: new Uint8Array([0x7f]) });
      await td.answer(union);
    });
    expect(read).toMatchObject({ status: SUCCESS, r11: 0x7fn });
  });

  it('is of shared memory, in sizes that processors have', async () => {
    for (const operands of [
      [48n, 5n, 0n, at],
      [48n, 4n, 2n, at],
      [48n, 4n, 0n, at & ~SHARED],
      [48n, 4n, 0n, SHARED * 2n - 2n],
    ] as const) {
      expect((await call(operands)).status).toBe(INVALID_OPERAND);
    }
  });
});

describe('what the kernel answers', () => {
  it('is CPUID of the vCPU', async () => {
    expect(await call([10n, 1n, 0n])).toMatchObject({ status: SUCCESS, r14: 1n << 21n });
  });

  it('is the MSRs of a fixed list', async () => {
    expect(await call([31n, 0x1bn])).toMatchObject({ status: SUCCESS, r11: 0xfee0_0d00n });
    expect((await call([31n, 0x10n])).status).toBe(INVALID_OPERAND);
    expect((await call([32n, 0x1bn, 0n])).status).toBe(INVALID_OPERAND);
    expect((await call([32n, 0x1fcn, 0x77n])).status).toBe(SUCCESS);
    expect((await call([31n, 0x1fcn])).r11).toBe(0x77n);
  });

  it('is that functions are unknown', async () => {
    expect((await call([0x10009n])).status).toBe(UNSUPPORTED);
  });

  it('is the base functions of GetTdVmCallInfo', async () => {
    expect(await call([0x10000n, 0n])).toMatchObject({ status: SUCCESS, r11: 0n, r12: 0n, r13: 0n, r14: 0n });
    expect((await call([0x10000n, 2n])).status).toBe(INVALID_OPERAND);
  });

  it('is KVM’s refusal of hypercalls of its own', async () => {
    let r10 = 0n;
    td.script(0, function* (cpu) {
      const out = yield* cpu.tdcall(0, { rcx: 0xfc00n, r10: 5n, r11: 0n });
      r10 = out[R10]!;
      yield* cpu.vmcall(0x10003n);
    });
    expect(await td.run()).toBe(KVM_EXIT.SYSTEM_EVENT);
    expect(BigInt.asIntN(64, r10)).toBe(-1000n);
  });
});

describe('what goes to user space', () => {
  const respond = (values: Parameters<typeof KVM_RUN_EXIT.TDX_GET_TDVMCALL_INFO.patch>[1]) => async () => {
    const union = await td.union();
    KVM_RUN_EXIT.TDX_GET_TDVMCALL_INFO.patch(union, values);
    await td.answer(union);
  };

  it('is leaf 1 of GetTdVmCallInfo', async () => {
    const answer = await call([0x10000n, 1n], async (reason) => {
      expect(reason).toBe(KVM_EXIT.TDX);
      expect(KVM_RUN_EXIT.TDX_GET_TDVMCALL_INFO.decode(await td.union())).toMatchObject({
        flags: 0n,
        nr: 0x10000n,
        ret: SUCCESS,
        leaf: 1n,
      });
      await respond({ ret: SUCCESS, r11: 2n, r12: 3n, r13: 4n, r14: 5n })();
    });
    expect(answer).toMatchObject({ status: SUCCESS, r11: 2n, r12: 3n, r13: 4n, r14: 5n });
  });

  it('is GetQuote, unsupported unless user space says otherwise, with a shared buffer only', async () => {
    let exit: unknown;
    const unanswered = await call([0x10002n, BigInt(GUEST_MEMORY) | SHARED, 4096n], async () => {
      exit = KVM_RUN_EXIT.TDX_GET_QUOTE.decode(await td.union());
    });
    expect(exit).toMatchObject({ nr: 0x10002n, ret: UNSUPPORTED, gpa: BigInt(GUEST_MEMORY), size: 4096n });
    expect(unanswered.status).toBe(UNSUPPORTED);
    const answered = await call([0x10002n, SHARED, 4096n], respond({ ret: SUCCESS }));
    expect(answered.status).toBe(SUCCESS);
    expect((await call([0x10002n, 0n, 4096n])).status).toBe(INVALID_OPERAND);
  });

  it('is SetupEventNotifyInterrupt, with a vector of an interrupt', async () => {
    expect((await call([0x10004n, 31n])).status).toBe(INVALID_OPERAND);
    expect((await call([0x10004n, 256n])).status).toBe(INVALID_OPERAND);
    expect((await call([0x10004n, 32n], respond({ ret: SUCCESS }))).status).toBe(SUCCESS);
  });

  it('is a fatal error, with all registers', async () => {
    td.script(0, function* (cpu) {
      yield* cpu.vmcall(0x10003n, 0x0baa_aaad_0000_0000n);
    });
    expect(await td.run()).toBe(KVM_EXIT.SYSTEM_EVENT);
    const { type, ndata, data } = KVM_RUN_EXIT.SYSTEM_EVENT.decode(await td.union());
    expect({ type, ndata }).toEqual({ type: KVM_SYSTEM_EVENT.TDX_FATAL, ndata: 16 });
    expect([data[12], data[13]]).toEqual([0x0baa_aaad_0000_0000n, 0n]);
  });
});

describe('MapGPA', () => {
  const gpa = BigInt(GUEST_MEMORY);
  const ret = (value: number) => async () => {
    const union = await td.union();
    KVM_RUN_EXIT.HYPERCALL.patch(union, { ret: BigInt(value) });
    await td.answer(union);
  };

  it('goes to user space by 2 MiB', async () => {
    const exits: unknown[] = [];
    const size = BigInt(PAGE_2M + 2 * PAGE_4K);
    const { status } = await call([MAP_GPA, gpa | SHARED, size], async () => {
      const { nr, args, ret: before } = KVM_RUN_EXIT.HYPERCALL.decode(await td.union());
      exits.push([nr, ...args.slice(0, 3), before]);
    });
    expect(exits).toEqual([
      [12n, gpa, 512n, 0n, 0n],
      [12n, gpa + BigInt(PAGE_2M), 2n, 0n, 0n],
    ]);
    expect(status).toBe(SUCCESS);
    await call([MAP_GPA, gpa, 4096n], async () => {
      expect(KVM_RUN_EXIT.HYPERCALL.decode(await td.union()).args[2]).toBe(0x10n);
    });
  });

  it('is refused at once with immediate_exit, and the guest hears of it when it runs again', async () => {
    let status = SUCCESS;
    td.script(0, function* (cpu) {
      status = (yield* cpu.vmcall(MAP_GPA, gpa | SHARED, 4096n))[R10]!;
      yield* cpu.vmcall(0x10003n);
    });
    expect(await td.run()).toBe(KVM_EXIT.HYPERCALL);
    await ret(ERRNO.EAGAIN)();
    await td.task.store(td.vcpus[0]!.run + 1, Uint8Array.of(1));
    await expect(td.run()).rejects.toMatchObject({ errno: 'EINTR' });
    expect(status).toBe(SUCCESS);
    await td.task.store(td.vcpus[0]!.run + 1, Uint8Array.of(0));
    expect(await td.run()).toBe(KVM_EXIT.SYSTEM_EVENT);
    expect(status).toBe(RETRY);
  });

  it('tells the guest where to go on, or that it cannot be', async () => {
    const size = BigInt(2 * PAGE_2M);
    let chunk = 0;
    const later = () => (chunk++ === 1 ? ret(ERRNO.EAGAIN)() : Promise.resolve());
    expect(await call([MAP_GPA, gpa, size], later)).toMatchObject({
      status: RETRY,
      r11: gpa + BigInt(PAGE_2M),
    });
    expect(await call([MAP_GPA, gpa, 4096n], ret(ERRNO.EINVAL))).toMatchObject({
      status: INVALID_OPERAND,
      r11: gpa,
    });
  });

  it('refuses other answers of user space', async () => {
    await expect(call([MAP_GPA, gpa, 4096n], ret(5))).rejects.toBeInstanceOf(KernelError);
  });

  it.each([
    ['a range that wraps', [gpa, 0xffff_ffff_ffff_f000n], INVALID_OPERAND],
    ['an empty range', [gpa, 0n], INVALID_OPERAND],
    ['an address beyond the width', [1n << 50n, 4096n], INVALID_OPERAND],
    ['a range that is private and shared', [SHARED - 4096n, 8192n], INVALID_OPERAND],
    ['an address within a page', [gpa + 1n, 4096n], ALIGN_ERROR],
    ['a part of a page', [gpa, 4095n], ALIGN_ERROR],
  ] as const)('refuses %s', async (_what, [at, size], status) => {
    expect(await call([MAP_GPA, at, size])).toMatchObject({ status, r11: at });
  });

  it('gives way to an interrupt between chunks', async () => {
    const { vm } = td.backend.td;
    const answer = await call([MAP_GPA, gpa, BigInt(2 * PAGE_2M)], async () => {
      td.backend.postInterrupt(vm.vcpus.get(0)!, 0x40);
    });
    expect(answer).toMatchObject({ status: RETRY, r11: gpa + BigInt(PAGE_2M) });
  });

  it('needs user space that knows of it', async () => {
    await td.enableCap(KVM_CAP.EXIT_HYPERCALL, 0n);
    expect((await call([MAP_GPA, gpa, 4096n])).status).toBe(UNSUPPORTED);
  });
});
