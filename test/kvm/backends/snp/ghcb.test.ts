/** What guests ask by VMGEXIT, rightly and wrongly. */
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../../src/abi/address.ts';
import { encodePscEntry, GHCB_EXIT, PSC_ERROR, PSC_HEADER, PSC_OPERATION } from '../../../../src/abi/ghcb.ts';
import { KVM_CAP } from '../../../../src/abi/kvm/capabilities.ts';
import { KVM_MAP_GPA_RANGE, KVM_RUN_EXIT, KVM_SYSTEM_EVENT } from '../../../../src/abi/kvm/exits.ts';
import type { GuestFlow } from '../../../../src/lab/guest/flow.ts';
import type { SnpVerbs } from '../../../../src/lab/guest/snp-guest.ts';
import { asSnpGuest } from '../../../../src/lab/guest/snp-kernel.ts';
import { account, C_BIT, GUEST_MEMORY, snpHost, UserSnp } from './user-snp.ts';

const DATA = GUEST_MEMORY + 4 * PAGE_4K;
const GFN = DATA / PAGE_4K;
const { PRIVATE, SHARED, PSMASH } = PSC_OPERATION;

async function guest(script: (verbs: SnpVerbs) => GuestFlow): Promise<UserSnp> {
  const user = await UserSnp.launching(await snpHost(), 1024);
  await user.finish();
  user.snpScript(function* (verbs) {
    yield* script(verbs);
    yield* verbs.cpu.hlt();
  });
  return user;
}

describe('the GHCB MSR protocol', () => {
  it('answers what it knows and leaves what it does not', async () => {
    const seen: bigint[] = [];
    const user = await guest(function* (verbs) {
      for (const request of [0x002n, 0x010n, 0x080n, (1n << 32n) | 0x004n, 0x0aan]) {
        seen.push(yield* verbs.msrRequest(request));
      }
    });
    expect(await user.run()).toBe('HLT');
    expect(seen).toEqual([
      (2n << 48n) | (1n << 32n) | (51n << 24n) | 1n,
      0xffff_ffff_ffff_f011n,
      0x1081n,
      0x005n,
      0x0aan,
    ]);
  });

  it('ends the guest at its request', async () => {
    const user = await guest(function* (verbs) {
      yield* verbs.terminate(1, 0x23);
    });
    expect(await user.run()).toBe('SYSTEM_EVENT');
    const { type, ndata, data } = await user.union(KVM_RUN_EXIT.SYSTEM_EVENT);
    expect([type, ndata, data[0]]).toEqual([KVM_SYSTEM_EVENT.SEV_TERM, 1, 0x23_1100n]);
  });

  it('fails page state changes that are none, that user space refuses or does not want to hear of', async () => {
    const seen: unknown[] = [];
    const user = await guest(function* (verbs) {
      seen.push(yield* verbs.msrRequest((3n << 52n) | BigInt(DATA) | 0x014n));
      seen.push(yield* verbs.changePageState(DATA, false));
      seen.push(yield* verbs.changePageState(DATA, false));
    });
    expect(await user.run()).toBe('HYPERCALL');
    const { args } = await user.union(KVM_RUN_EXIT.HYPERCALL);
    expect(args.slice(0, 3)).toEqual([BigInt(DATA), 1n, 0n]);
    await user.answer(KVM_RUN_EXIT.HYPERCALL.offsets.ret, new Uint8Array(8).fill(1));
    await user.enableCap(KVM_CAP.EXIT_HYPERCALL, 0n);
    expect(await user.run()).toBe('HLT');
    expect(seen).toEqual([(1n << 32n) | 0x015n, false, false]);
  });
});

describe('the GHCB', () => {
  it('must be registered', async () => {
    const user = await guest(function* (verbs) {
      yield* verbs.changePageState(GUEST_MEMORY, false);
      yield* verbs.vmgexit(GHCB_EXIT.HV_FEATURES);
    });
    expect(await user.run()).toBe('HYPERCALL');
    await user.convert();
    expect(await user.run()).toMatch(/^EINVAL/);
  });

  it('is answered by what is wrong with it', async () => {
    const seen: unknown[] = [];
    const user = await guest(function* (verbs) {
      yield* verbs.registerGhcb();
      const ask = function* (code: number, fields = {}): GuestFlow {
        const { sw_exit_info_1, sw_exit_info_2 } = yield* verbs.vmgexit(code, fields);
        seen.push([sw_exit_info_1, sw_exit_info_2]);
      };
      yield* ask(GHCB_EXIT.HV_FEATURES);
      yield* ask(GHCB_EXIT.AP_CREATION);
      yield* ask(GHCB_EXIT.CPUID, { rax: 1n });
      yield* ask(GHCB_EXIT.PSC, { sw_scratch: 0n, sw_exit_info_2: 64n });
      yield* ask(GHCB_EXIT.MMIO_READ, { sw_exit_info_1: 0n, sw_exit_info_2: 9n });
    });
    expect(await user.runToHalt()).toEqual(['HYPERCALL', 'HLT']);
    expect(seen).toEqual([
      [0n, 1n],
      [2n, 6n],
      [2n, 4n],
      [2n, 3n],
      [2n, 3n],
    ]);
  });

  it('lies in a page that the host does not write once it is private again', async () => {
    const user = await guest(function* (verbs) {
      yield* verbs.registerGhcb();
      yield* verbs.vmgexit(GHCB_EXIT.IOIO, { rax: 1n, sw_exit_info_1: (0x50n << 16n) | (1n << 4n) });
    });
    expect(await user.run()).toBe('HYPERCALL');
    await user.convert();
    expect(await user.run()).toBe('IO');
    const before = account(user.host);
    // User space takes the page away while the exit waits; the host keeps it until it has answered.
    await user.task.munmap(user.memory, PAGE_4K);
    expect(account(user.host).usedPages).toBe(before.usedPages);
    await user.run();
    expect(account(user.host).usedPages).toBeLessThan(before.usedPages);
    await user.exit();
    expect(account(user.host)).toMatchObject({ rmp: [], asids: 0, leaked: 0 });
  });
});

describe('lists of page state changes', () => {
  const list = (entries: readonly Parameters<typeof encodePscEntry>[0][], header = {}) => {
    const buffer = new Uint8Array(PSC_HEADER.bytes + entries.length * 8);
    PSC_HEADER.patch(buffer, { end_entry: entries.length - 1, ...header });
    const view = new DataView(buffer.buffer);
    for (const [i, entry] of entries.entries()) view.setBigUint64(8 + i * 8, encodePscEntry(entry), true);
    return buffer;
  };
  const entry = (gfn: number, operation: number = PRIVATE, isLarge = false, currentPage = 0) => ({
    gfn,
    operation,
    isLarge,
    currentPage,
  });

  async function request(buffer: Uint8Array): Promise<{ exits: (readonly bigint[])[]; result: bigint }> {
    let result = -1n;
    const user = await guest(function* (verbs) {
      yield* verbs.registerGhcb();
      const fields = { sw_exit_info_2: BigInt(buffer.length) };
      result = (yield* verbs.vmgexit(GHCB_EXIT.PSC, fields, buffer)).sw_exit_info_2;
    });
    expect(await user.run()).toBe('HYPERCALL');
    await user.convert();
    const exits: (readonly bigint[])[] = [];
    for (;;) {
      const exit = await user.run();
      if (exit === 'HLT') return { exits, result };
      exits.push((await user.union(KVM_RUN_EXIT.HYPERCALL)).args.slice(0, 3));
      await user.convert();
    }
  }

  const ENC = KVM_MAP_GPA_RANGE.ENC_STAT;
  const LARGE = KVM_MAP_GPA_RANGE.PAGE_SZ_2M;

  it('make one exit of neighbours', async () => {
    const entries = [entry(GFN), entry(GFN + 1), entry(GFN + 2, SHARED), entry(GFN + 4, SHARED)];
    const { exits, result } = await request(list(entries));
    const at = (gfn: number) => BigInt(gfn * PAGE_4K);
    expect(exits).toEqual([
      [at(GFN), 2n, ENC],
      [at(GFN + 2), 1n, 0n],
      [at(GFN + 4), 1n, 0n],
    ]);
    expect(result).toBe(0n);
  });

  it('go on in the middle of a 2 MiB entry, pass over hints and what is done', async () => {
    const large = Math.ceil(GFN / 512) * 512;
    const entries = [
      entry(GFN, PSMASH),
      entry(GFN, PRIVATE, false, 1),
      entry(large, PRIVATE, true, 500),
      entry(large + 512, PRIVATE, true),
    ];
    const { exits, result } = await request(list(entries));
    expect(exits).toEqual([
      [BigInt((large + 500) * PAGE_4K), 12n, ENC | LARGE],
      [BigInt((large + 512) * PAGE_4K), 512n, ENC | LARGE],
    ]);
    expect(result).toBe(0n);
  });

  it('end with an error that says what is wrong', async () => {
    expect((await request(list([entry(GFN)], { end_entry: 253 }))).result).toBe(PSC_ERROR.INVALID_HEADER);
    expect((await request(list([entry(GFN)], { end_entry: 1 }))).result).toBe(PSC_ERROR.INVALID_HEADER);
    expect((await request(list([entry(GFN, PRIVATE, true)]))).result).toBe(PSC_ERROR.INVALID_ENTRY);
    expect((await request(list([entry(GFN, PRIVATE, false, 2)]))).result).toBe(PSC_ERROR.INVALID_ENTRY);
  });
});

it('gives each vCPU its own GHCB', async () => {
  const user = await UserSnp.launching(await snpHost(), 16, 2);
  await user.finish();
  const seen: number[] = [];
  for (const vcpu of [0, 1]) {
    const script = asSnpGuest(
      function* (cpu) {
        seen.push(yield* cpu.in(0x60 + vcpu));
        yield* cpu.hlt();
      },
      { cBit: C_BIT, ghcb: ({ index }) => GUEST_MEMORY + index * PAGE_4K },
    );
    user.script(script, vcpu);
  }
  for (const vcpu of [0, 1]) {
    expect(await user.run(vcpu)).toBe('HYPERCALL');
    await user.convert(vcpu);
    expect(await user.run(vcpu)).toBe('IO');
    await user.task.store(user.vcpus[vcpu]!.run + PAGE_4K, Uint8Array.of(0x10 + vcpu));
  }
  for (const vcpu of [1, 0]) expect(await user.run(vcpu)).toBe('HLT');
  expect(seen).toEqual([0x11, 0x10]);
});
