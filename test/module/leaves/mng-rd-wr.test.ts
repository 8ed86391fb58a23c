import { describe, expect, it } from 'vitest';
import { CPUID_POLICIES } from '../../../src/abi/cpuid-policy.ts';
import { NO_FIELD } from '../../../src/abi/global-fields.ts';
import { TDG, TDH } from '../../../src/abi/leaves.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { TD_FIELDS } from '../../../src/abi/td-fields.ts';
import { TDCS, TDR } from '../../../src/module/td/layout.ts';
import { guestCalls } from '../../support/guest-call.ts';
import { type ReadyTd, readyTd, type TdOptions } from '../../support/ready-td.ts';

const ALL = 0xffff_ffff_ffff_ffffn;
const DEBUG = 1n;
const FLEXIBLE_PENDING_VE = 2n;
const VERSION_1 = 1 << 16;
const idOf = (name: string): bigint => TD_FIELDS.find((field) => field.name === name)!.id;
/** Id of half `element` of a CPUID leaf's values. */
const cpuidId = (leaf: number, subleaf?: number, element = 0): bigint => {
  const code = ((leaf & 0x7f) << 9) | (subleaf === undefined ? 1 << 8 : subleaf << 1) | element;
  return idOf('CPUID_VALUES') | BigInt(code) | (leaf >= 0x8000_0000 ? 1n << 16n : 0n);
};

const read = (t: ReadyTd, id: bigint, version = 0): ReturnType<ReadyTd['call']> =>
  t.call(TDH.mngRd | (version << 16), { rcx: t.tdr, rdx: id });
const write = (t: ReadyTd, id: bigint, value: bigint, mask = ALL): ReturnType<ReadyTd['call']> =>
  t.call(TDH.mngWr, { rcx: t.tdr, rdx: id, r8: value, r9: mask });

describe('TDH.MNG.RD', () => {
  it('answers a field in R8, and in version 1 the id of the next in RDX', () => {
    const t = readyTd();
    const id = idOf('NUM_TDCX');
    expect(read(t, id)).toEqual({ rax: 0n, rcx: t.tdr, rdx: id, r8: 6n });
    expect(read(t, id, 1)).toEqual({ rax: 0n, rcx: t.tdr, rdx: idOf('CHLDCNT'), r8: 6n });
    expect(read(t, idOf('CHLDCNT')).r8).toBe(BigInt(t.td.tdr.n64(TDR.CHLDCNT)));
    expect(read(t, idOf('NUM_CPUID_VALUES')).r8).toBe(BigInt(CPUID_POLICIES.length));
    expect(read(t, idOf('HKID')).r8).toBe(41n);
  });

  it('names the first field when asked for none', () => {
    const t = readyTd();
    const first = { rax: STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT, rcx: t.tdr, rdx: idOf('FATAL') };
    expect(read(t, NO_FIELD, 1)).toEqual(first);
    expect(read(t, NO_FIELD & ~(0x70n << 48n), 1)).toEqual(first);
    expect(read(t, NO_FIELD).rax).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
  });

  it('ignores size, context and bit 63 of an id and keeps them in the next one', () => {
    const t = readyTd();
    const id = idOf('TD_UUID');
    const bare = (id & 0x3f00_0000_00ff_ffffn) | (1n << 51n);
    expect(read(t, bare, 1)).toMatchObject({ rax: 0n, rdx: bare + 1n + (1n << 52n), r8: read(t, id).r8 });
    for (const bit of [24, 31, 34, 37, 38, 46, 47, 49, 55, 62].map(BigInt)) {
      expect(read(t, id | (1n << bit), 1)).toEqual({
        rax: STATUS.TDX_METADATA_FIELD_ID_INCORRECT,
        rcx: t.tdr,
        rdx: NO_FIELD,
      });
    }
  });

  it('checks version, TDR and operation state before the id', () => {
    const t = readyTd();
    const asked = { rcx: t.tdr | 1n, rdx: 1n << 62n, r8: 7n };
    expect(t.status(TDH.mngRd | (2 << 16), asked)).toBe(STATUS.TDX_OPERAND_INVALID);
    expect(t.call(TDH.mngRd | VERSION_1, asked)).toEqual({
      rax: STATUS.TDX_OPERAND_INVALID | 1n,
      rcx: t.tdr | 1n,
      rdx: NO_FIELD,
    });
    t.td.tdcs.setU16(TDCS.OP_STATE_LOCK, 1);
    expect(read(t, 1n << 62n).rax).toBe(STATUS.TDX_OPERAND_BUSY | 172n);
    expect(write(t, 1n << 62n, 0n).rax).toBe(STATUS.TDX_OPERAND_BUSY | 172n);
    t.td.tdcs.setU16(TDCS.OP_STATE_LOCK, 0);
    expect(read(t, idOf('FATAL')).rax).toBe(0n);
    expect(t.td.tdcs.u16(TDCS.OP_STATE_LOCK)).toBe(0);
  });

  it('shows the measurements that run on, the keys and the tables of debug TDs only', () => {
    const production = readyTd();
    const debug = readyTd({ attributes: DEBUG });
    for (const name of ['RTMR', 'TD_CTLS', 'MIG_ENC_KEY', 'MSR_BITMAPS', 'SEPT_ROOT', 'CPUID_VALID']) {
      expect(read(production, idOf(name), 1)).toEqual({
        rax: STATUS.TDX_METADATA_FIELD_NOT_READABLE,
        rcx: production.tdr,
        rdx: NO_FIELD,
      });
      expect(read(debug, idOf(name)).rax).toBe(0n);
    }
    expect(read(debug, idOf('MIG_ENC_KEY')).r8).toBe(debug.td.tdcs.u64(TDCS.MIG_ENC_KEY));
    expect(read(debug, idOf('VIRTUAL_TSC')).rax).toBe(STATUS.TDX_METADATA_FIELD_NOT_READABLE);
  });

  it.each([
    [0n, 0],
    [DEBUG, 0],
    [0n, 2],
    [DEBUG, 1],
    [DEBUG, 3],
  ])('visits every readable element once, with attributes %d and %d L2 VMs', (attributes, l2Vms) => {
    const t = readyTd({ attributes, l2Vms });
    const access = attributes === DEBUG ? 'debug' : 'host';
    const seen: bigint[] = [];
    for (let id = read(t, NO_FIELD, 1).rdx!; id !== NO_FIELD; ) {
      seen.push(id);
      const out = read(t, id, 1);
      expect(out.rax).toBe(0n);
      id = out.rdx!;
    }
    const roots = ['L2_SEPT_ROOT_1', 'L2_SEPT_ROOT_2', 'L2_SEPT_ROOT_3'].slice(l2Vms);
    const readable = TD_FIELDS.filter((field) => field[access][0] !== 0n && !roots.includes(field.name));
    const expected = readable.flatMap(({ name, id, fields, elements }) =>
      name === 'CPUID_VALUES'
        ? CPUID_POLICIES.flatMap(({ leaf, subleaf }) => [cpuidId(leaf, subleaf), cpuidId(leaf, subleaf, 1)])
        : Array.from({ length: fields * elements }, (_, i) => id + BigInt(i)),
    );
    expect(seen).toEqual(expected);
  });

  it('has the secure EPT roots of as many L2 VMs as the TD', () => {
    const t = readyTd({ attributes: DEBUG, l2Vms: 1 });
    expect(read(t, idOf('L2_SEPT_ROOT_1')).rax).toBe(0n);
    expect(read(t, idOf('L2_SEPT_ROOT_2')).rax).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
  });
});

describe('CPUID values', () => {
  it('reads a leaf in two halves and goes on with the next leaf', () => {
    const t = readyTd();
    const at = TDCS.CPUID_VALUES;
    expect(read(t, cpuidId(1), 1)).toMatchObject({ rdx: cpuidId(1, undefined, 1), r8: t.td.tdcs.u64(at) });
    expect(read(t, cpuidId(1, undefined, 1), 1)).toMatchObject({
      rdx: cpuidId(CPUID_POLICIES[1]!.leaf, CPUID_POLICIES[1]!.subleaf),
      r8: t.td.tdcs.u64(at + 8),
    });
    const { leaf, subleaf } = CPUID_POLICIES.at(-1)!;
    expect(read(t, cpuidId(leaf, subleaf, 1), 1).rdx).toBe(idOf('MIG_DEC_KEY_SET'));
  });

  it('reads leaves that the TD sees as zero, whether the module keeps them or not', () => {
    const t = readyTd();
    const zero = { rax: 0n, rcx: t.tdr };
    expect(read(t, cpuidId(3))).toEqual({ ...zero, rdx: cpuidId(3) });
    expect(read(t, cpuidId(3, undefined, 1), 1).rdx).toBe(cpuidId(4, 4));
    expect(read(t, cpuidId(9))).toEqual({ ...zero, rdx: cpuidId(9) });
    expect(read(t, cpuidId(0x8000_0003, 5))).toEqual({ ...zero, rdx: cpuidId(0x8000_0003, 5) });
    // No place among the values: iteration goes to what follows them.
    expect(read(t, cpuidId(9, undefined, 1), 1).rdx).toBe(idOf('MIG_DEC_KEY_SET'));
    expect(write(t, cpuidId(9), 0n).rax).toBe(STATUS.TDX_METADATA_FIELD_NOT_READABLE);
  });

  it('refuses what no TD has, and ids with more than leaf and subleaf', () => {
    const t = readyTd();
    // 0x37 is beyond the base leaves; the bitmap has a bit of that number for an extended leaf.
    for (const id of [cpuidId(0x30), cpuidId(0x37), cpuidId(0x7, 9), cpuidId(0x8000_0020)]) {
      expect(read(t, id).rax).toBe(STATUS.TDX_METADATA_FIELD_NOT_READABLE);
      expect(write(t, id, 0n).rax).toBe(STATUS.TDX_METADATA_FIELD_NOT_READABLE);
    }
    expect(read(t, cpuidId(1) | (1n << 17n)).rax).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
    expect(write(t, cpuidId(1), 0n).rax).toBe(STATUS.TDX_METADATA_FIELD_NOT_WRITABLE);
  });

  it('keeps them from the TD', () => {
    const t = readyTd({ runnable: true });
    const guest = guestCalls(t);
    for (const id of [cpuidId(1), cpuidId(3)]) {
      expect(guest.call(TDG.vmRd, { rdx: id }).rax).toBe(STATUS.TDX_METADATA_FIELD_NOT_READABLE);
    }
  });
});

describe('TDH.MNG.WR', () => {
  const VM_CTLS = idOf('VM_CTLS');

  it('writes the bits asked for, answers the old value and leaves the rest', () => {
    const t = readyTd();
    expect(write(t, VM_CTLS, 0xfn, 0xan)).toEqual({ rax: 0n, rcx: t.tdr, rdx: VM_CTLS, r9: 0xan });
    expect(write(t, VM_CTLS, 0x5n, 0x7n)).toEqual({ rax: 0n, rcx: t.tdr, rdx: VM_CTLS, r8: 0xan, r9: 0x7n });
    expect(read(t, VM_CTLS).r8).toBe(0xdn);
  });

  it('refuses bits that cannot be written unless they stay as they are', () => {
    const t = readyTd();
    const refused = (status: bigint, mask: bigint): object => ({
      rax: status,
      rcx: t.tdr,
      rdx: VM_CTLS,
      r9: mask,
    });
    expect(write(t, VM_CTLS, 1n, 0x10n)).toEqual(refused(STATUS.TDX_METADATA_FIELD_NOT_WRITABLE, 0x10n));
    expect(write(t, VM_CTLS, 0x11n, 0x1fn)).toEqual(
      refused(STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID, 0x1fn),
    );
    expect(write(t, VM_CTLS, 0x1n, ALL).rax).toBe(0n);
    expect(write(t, idOf('ATTRIBUTES'), 0n).rax).toBe(STATUS.TDX_METADATA_FIELD_NOT_WRITABLE);
    expect(write(t, 0x1n << 24n, 0n).rax).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
  });

  it('takes HP_LOCK_TIMEOUT in microseconds, whole and between 10 ms and 100 s', () => {
    const t = readyTd();
    const id = idOf('HP_LOCK_TIMEOUT');
    expect(read(t, id).r8).toBe(1_000_000n);
    expect(write(t, id, 20_000n, 0xffffn).rax).toBe(STATUS.TDX_METADATA_WR_MASK_NOT_VALID);
    for (const value of [0n, 9_999n, 100_000_001n, ALL]) {
      expect(write(t, id, value).rax).toBe(STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID);
    }
    expect(write(t, id, 10_000n).r8).toBe(1_000_000n);
    expect(read(t, id).r8).toBe(10_000n);
    // The ticks of a long time do not fit into 32 bits and lose what is above.
    expect(write(t, id, 100_000_000n).rax).toBe(0n);
    const hz = BigInt(t.module.platform!.tscHz);
    expect(t.td.tdcs.u64(TDCS.HP_LOCK_TIMEOUT)).toBe((100n * hz) % 2n ** 32n);
  });
});

describe('TDG.VM.RD and TDG.VM.WR', () => {
  const TD_CTLS = idOf('TD_CTLS');
  const LOCK = 1n << 63n;
  const guestTd = (options: TdOptions): ReturnType<typeof guestCalls> & { readonly t: ReadyTd } => {
    const t = readyTd({ runnable: true, ...options });
    return { ...guestCalls(t), t };
  };
  const set = (guest: ReturnType<typeof guestTd>, id: bigint, value: bigint, mask = ALL): bigint =>
    guest.call(TDG.vmWr, { rdx: id, r8: value, r9: mask }).rax!;

  it('sees what concerns the TD and not what the host keeps of it', () => {
    const guest = guestTd({});
    expect(guest.call(TDG.vmRd, { rdx: idOf('NUM_VCPUS') })).toEqual({
      rax: 0n,
      rdx: idOf('NUM_VCPUS'),
      r8: 1n,
    });
    expect(guest.call(TDG.vmRd | VERSION_1, { rdx: NO_FIELD })).toEqual({
      rax: STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT,
      rdx: idOf('TD_UUID'),
    });
    expect(guest.call(TDG.vmRd | VERSION_1, { rdx: idOf('GPAW') }).rdx).toBe(idOf('TSC_FREQUENCY'));
    const hidden = { rax: STATUS.TDX_METADATA_FIELD_NOT_READABLE, rdx: NO_FIELD };
    for (const name of ['CHLDCNT', 'TDCX_PA', 'HKID', 'EPTP', 'TD_EPOCH', 'MIG_ENC_KEY']) {
      expect(guest.call(TDG.vmRd | VERSION_1, { rdx: idOf(name), r8: 5n })).toEqual(hidden);
    }
  });

  it('knows only the TD itself, and one version above 0 of RD', () => {
    const guest = guestTd({});
    const asked = { rcx: 1n, rdx: idOf('ATTRIBUTES'), r8: 9n };
    expect(guest.call(TDG.vmRd, asked)).toEqual({
      ...asked,
      r8: undefined,
      rax: STATUS.TDX_OPERAND_INVALID | 1n,
    });
    expect(guest.call(TDG.vmWr, asked)).toEqual({
      ...asked,
      r8: undefined,
      rax: STATUS.TDX_OPERAND_INVALID | 1n,
    });
    expect(guest.call(TDG.vmRd | (2 << 16), { rdx: 0n }).rax).toBe(STATUS.TDX_OPERAND_INVALID);
    expect(guest.call(TDG.vmWr | VERSION_1, { rdx: 0n }).rax).toBe(STATUS.TDX_OPERAND_INVALID);
  });

  it('turns #VEs on pending pages on and off only where the host allows it', () => {
    expect(set(guestTd({}), TD_CTLS, 1n)).toBe(STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID);
    const guest = guestTd({ configFlags: FLEXIBLE_PENDING_VE });
    expect(set(guest, TD_CTLS, 1n)).toBe(0n);
    expect(guest.call(TDG.vmRd, { rdx: TD_CTLS }).r8).toBe(1n);
  });

  it('needs x2APIC ids for a virtual topology, which fewer #VEs bring with them', () => {
    const REDUCE_VE = 8n;
    const without = guestTd({});
    for (const value of [2n, REDUCE_VE]) {
      expect(set(without, TD_CTLS, value)).toBe(STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID);
    }
    expect(set(without, TD_CTLS, 4n)).toBe(0n);
    const guest = guestTd({ x2apicId: 3n });
    expect(set(guest, TD_CTLS, REDUCE_VE)).toBe(0n);
    expect(guest.call(TDG.vmRd, { rdx: TD_CTLS }).r8).toBe(0xen);
  });

  it('locks its choices for good', () => {
    const guest = guestTd({ x2apicId: 3n });
    const PARAVIRT = idOf('FEATURE_PARAVIRT_CTLS');
    expect(set(guest, PARAVIRT, 0x801n)).toBe(0n);
    expect(set(guest, TD_CTLS, LOCK | 4n)).toBe(0n);
    expect(set(guest, TD_CTLS, 0n)).toBe(STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID);
    expect(set(guest, TD_CTLS, LOCK | 4n)).toBe(0n);
    expect(set(guest, PARAVIRT, 0x800n)).toBe(STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID);
    expect(set(guest, PARAVIRT, 0x801n)).toBe(0n);
    expect(guest.call(TDG.vmRd, { rdx: PARAVIRT }).r8).toBe(0x801n);
  });

  it('asks to hear of zero-step attacks', () => {
    const guest = guestTd({});
    expect(set(guest, idOf('NOTIFY_ENABLES'), 3n)).toBe(STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID);
    expect(set(guest, idOf('NOTIFY_ENABLES'), 3n, 1n)).toBe(0n);
    expect(guest.t.td.tdcs.u64(TDCS.NOTIFY_ENABLES)).toBe(1n);
  });
});
