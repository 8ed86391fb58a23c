import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { NO_FIELD } from '../../../src/abi/global-fields.ts';
import { TDG, TDH } from '../../../src/abi/leaves.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { VCPU_FIELDS } from '../../../src/abi/vcpu-fields.ts';
import { TDCS, TDVPS, VCPU_STATE } from '../../../src/module/td/layout.ts';
import { VMCS } from '../../../src/module/td/vmcs.ts';
import { guestCalls } from '../../support/guest-call.ts';
import { readyTd, type TdOptions } from '../../support/ready-td.ts';
import { idOf, type Vcpu, vcpu, vmcsId } from '../../support/vcpu-metadata.ts';

const DEBUG = 1n;
const LOCK = 1n << 63n;
const NOT_VALID = STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
const NOT_WRITABLE = STATUS.TDX_METADATA_FIELD_NOT_WRITABLE;

describe('TDH.VP.RD and TDH.VP.WR', () => {
  it('reads and writes a field of the TDVPS and one of the VMCS', () => {
    const { read, write, value, t } = vcpu({ attributes: DEBUG });
    expect(read(idOf('VCPU_INDEX'), 1)).toEqual({ rax: 0n, rcx: t.tdvpr, rdx: idOf('NUM_TDVPS_PAGES') });
    expect(read(vmcsId(VMCS.GUEST_RIP), 1)).toEqual({
      rax: 0n,
      rcx: t.tdvpr,
      rdx: vmcsId(VMCS.GUEST_RFLAGS) | (3n << 32n),
      r8: 0xffff_fff0n,
    });
    expect(write(vmcsId(VMCS.GUEST_RIP), 0x1234_5678_9abc_def0n, 0xffff_0000n)).toBe(0n);
    expect(value(vmcsId(VMCS.GUEST_RIP))).toBe(0x9abc_fff0n);
    expect(write(idOf('R15'), 0x77n, 0xfn)).toBe(0n);
    expect(t.call(TDH.vpWr, { rcx: t.tdvpr, rdx: idOf('R15'), r8: 1n, r9: 1n })).toMatchObject({
      rax: 0n,
      r8: 7n,
    });
  });

  it('has no ids for the upper halves of VMCS fields', () => {
    const { read, write } = vcpu({ attributes: DEBUG });
    expect(read(vmcsId(VMCS.TSC_OFFSET + 1)).rax).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
    expect(write(vmcsId(VMCS.GUEST_CR0 + 1), 0n)).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
    expect(read(vmcsId(0x6c14)).rax).toBe(STATUS.TDX_METADATA_FIELD_NOT_READABLE);
    expect(write(vmcsId(0x6c14), 0n)).toBe(NOT_WRITABLE);
    expect(read(vmcsId(0x7000)).rax).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
  });

  it('keeps registers and guest state of a production TD from the host', () => {
    const { read, write, t } = vcpu();
    for (const id of [idOf('RAX'), idOf('XBUFF'), idOf('IA32_LSTAR'), idOf('CR2'), vmcsId(VMCS.GUEST_CR3)]) {
      expect(read(id, 1)).toEqual({
        rax: STATUS.TDX_METADATA_FIELD_NOT_READABLE,
        rcx: t.tdvpr,
        rdx: NO_FIELD,
      });
      expect(write(id, 0n)).toBe(NOT_WRITABLE);
    }
    expect(write(idOf('PEND_NMI'), 1n, 0xffn)).toBe(0n);
    expect(read(idOf('PEND_NMI')).r8).toBe(1n);
  });

  it('associates the vCPU with the processor, and leaves one that another has', () => {
    const { read, write, t } = vcpu();
    expect(t.status(TDH.vpFlush, { rcx: t.tdvpr })).toBe(0n);
    expect(t.td.tdcs.u32(TDCS.NUM_ASSOC_VCPUS)).toBe(0);
    expect(read(idOf('ASSOC_LPID'), 0, 2).r8).toBe(128n);
    expect(t.td.tdcs.u32(TDCS.NUM_ASSOC_VCPUS)).toBe(1);
    expect(read(1n << 62n, 0, 0).rax).toBe(STATUS.TDX_VCPU_ASSOCIATED);
    expect(write(idOf('PEND_NMI'), 1n, 1n, 0)).toBe(STATUS.TDX_VCPU_ASSOCIATED);
  });

  it('reads a disabled vCPU and writes none that is not ready', () => {
    const { read, write, t } = vcpu();
    const tdvps = t.td.tdvps(Number(t.tdvpr))!;
    tdvps.setU8(TDVPS.VCPU_STATE, VCPU_STATE.DISABLED);
    expect(read(idOf('VCPU_INDEX')).rax).toBe(0n);
    expect(write(idOf('PEND_NMI'), 1n)).toBe(STATUS.TDX_VCPU_STATE_INCORRECT | 8n);
    tdvps.setU8(TDVPS.VCPU_STATE, VCPU_STATE.READY);
    guestCalls(t).call(TDG.vpInfo);
    expect(read(idOf('VCPU_INDEX'), 0, 1).rax).toBe(STATUS.TDX_VCPU_STATE_INCORRECT | 4n);
  });

  it('checks version, page and operation state first', () => {
    const { t } = vcpu();
    const asked = { rcx: t.tdvpr | 1n, rdx: 1n << 62n };
    expect(t.status(TDH.vpRd | (2 << 16), asked)).toBe(STATUS.TDX_OPERAND_INVALID);
    expect(t.call(TDH.vpRd | (1 << 16), { ...asked, r8: 4n })).toEqual({
      rax: STATUS.TDX_OPERAND_INVALID | 1n,
      rcx: asked.rcx,
      rdx: NO_FIELD,
    });
    t.td.tdcs.setU16(TDCS.OP_STATE_LOCK, 1);
    for (const leaf of [TDH.vpRd, TDH.vpWr]) {
      expect(t.status(leaf, { rcx: t.tdvpr, rdx: 1n << 62n })).toBe(STATUS.TDX_OPERAND_BUSY | 172n);
    }
    t.td.tdcs.setU16(TDCS.OP_STATE_LOCK, 0);
    expect(t.status(TDH.vpRd, { rcx: t.tdvpr, rdx: 1n << 62n })).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
    expect(t.td.tdcs.u16(TDCS.OP_STATE_LOCK)).toBe(0);
    const bare = readyTd();
    const root = bare.page();
    bare.status(TDH.vpCreate, { rcx: root, rdx: bare.tdr });
    expect(bare.status(TDH.vpRd, { rcx: root, rdx: 0n })).toBe(STATUS.TDX_TDCX_NUM_INCORRECT);
  });

  it.each([
    [0n, 0],
    [DEBUG, 0],
    [0n, 1],
    [DEBUG, 2],
  ])('visits every readable element once, with attributes %d and %d L2 VMs', (attributes, l2Vms) => {
    const { read } = vcpu({ attributes, l2Vms });
    const access = attributes === DEBUG ? 'debug' : 'host';
    const seen: bigint[] = [];
    for (let id = read(NO_FIELD, 1).rdx!; id !== NO_FIELD; ) {
      seen.push(id);
      const out = read(id, 1);
      expect(out.rax).toBe(0n);
      id = out.rdx!;
    }
    const expected = VCPU_FIELDS.filter(
      (field) => field[access][0] !== 0n && (field.classCode < 36 || field.classCode < 36 + 8 * l2Vms),
    ).flatMap(({ id, fields, elements, stride }) =>
      Array.from({ length: fields * elements }, (_, i) => id + BigInt(i * stride)),
    );
    expect(seen).toEqual(expected);
  });
});

it('has the pages of the TDVPS at the offsets of its fields', () => {
  const { value, t } = vcpu({ attributes: DEBUG });
  const addresses = Array.from({ length: 6 }, (_, i) => value(idOf('TDVPS_PAGE_PA') + BigInt(i)));
  expect(addresses.map((address) => Number(address % 2n ** 46n) % PAGE_4K)).toEqual([0, 0, 0, 0, 0, 0]);
  expect(Number(addresses[0]! % 2n ** 46n)).toBe(Number(t.tdvpr));
});

describe('TDG.VP.RD and TDG.VP.WR', () => {
  const guestVcpu = (options: TdOptions = {}): Vcpu & ReturnType<typeof guestCalls> => {
    const made = vcpu(options);
    return { ...made, ...guestCalls(made.t) };
  };

  it('reads what is the guest’s and always names the next', () => {
    const { call } = guestVcpu();
    expect(call(TDG.vpRd, { rdx: NO_FIELD })).toEqual({
      rax: STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT,
      rdx: idOf('VCPU_STATE_DETAILS'),
    });
    expect(call(TDG.vpRd, { rdx: idOf('VCPU_INDEX') })).toEqual({
      rax: 0n,
      rdx: idOf('CPUID_SUPERVISOR_VE'),
    });
    for (const id of [idOf('RAX'), vmcsId(VMCS.GUEST_CR3), idOf('ASSOC_LPID')]) {
      expect(call(TDG.vpRd, { rdx: id, r8: 3n })).toEqual({
        rax: STATUS.TDX_METADATA_FIELD_NOT_READABLE,
        rdx: NO_FIELD,
      });
    }
    expect(call(TDG.vpRd, { rcx: 1n, rdx: idOf('VCPU_INDEX') })).toEqual({
      rax: STATUS.TDX_OPERAND_INVALID | 1n,
      rcx: 1n,
      rdx: NO_FIELD,
    });
    expect(call(TDG.vpWr, { rcx: 1n, rdx: 5n }).rax).toBe(STATUS.TDX_OPERAND_INVALID | 1n);
    expect(call(TDG.vpRd | (1 << 16), { rdx: NO_FIELD }).rax).toBe(STATUS.TDX_OPERAND_INVALID);
  });

  it('sees at once what the vCPU waits for, and the host as it was', () => {
    const { call, leave, value, vmcs, t } = guestVcpu();
    call(TDG.vpInfo);
    const DETAILS = idOf('VCPU_STATE_DETAILS');
    vmcs().write(VMCS.GUEST_INTERRUPT_STATUS, 0x2030n);
    expect(call(TDG.vpRd, { rdx: DETAILS }).r8).toBe(0x11n);
    leave();
    expect(value(DETAILS)).toBe(0x11n);
    t.td.tdvps(Number(t.tdvpr))!.setU64(TDVPS.VCPU_STATE_DETAILS, 0n);
    expect(value(DETAILS)).toBe(0n);
  });

  it('chooses per CPUID leaf which mode takes a #VE, until the TD locks', () => {
    const { call, t } = guestVcpu();
    const control = idOf('CPUID_CONTROL') + 5n;
    const set = (id: bigint, value: bigint, mask: bigint): bigint =>
      call(TDG.vpWr, { rdx: id, r8: value, r9: mask }).rax!;
    expect(set(control, 4n, 7n)).toBe(NOT_VALID);
    expect(set(control, 2n, 3n)).toBe(0n);
    expect(set(idOf('CPUID_USER_VE'), 1n, 0xffn)).toBe(0n);
    t.td.tdcs.setU64(TDCS.TD_CTLS, LOCK);
    expect(set(control, 2n, 3n)).toBe(0n);
    expect(set(control, 1n, 3n)).toBe(NOT_VALID);
    // A write of the whole element is compared with zero instead of the old value.
    expect(set(idOf('CPUID_USER_VE'), 1n, 0xffn)).toBe(NOT_VALID);
    expect(set(idOf('CPUID_USER_VE'), 0n, 0xffn)).toBe(0n);
    expect(set(idOf('CPUID_USER_VE'), 1n, 0x7fn)).toBe(0n);
    expect(call(TDG.vpRd, { rdx: idOf('CPUID_USER_VE') }).r8).toBe(1n);
  });
});
