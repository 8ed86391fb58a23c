import { describe, expect, it } from 'vitest';
import { TDG } from '../../../src/abi/leaves.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { TDCS, TDCS_PAGE, TDR, TDVPS } from '../../../src/module/td/layout.ts';
import { VMCS } from '../../../src/module/td/vmcs.ts';
import { guestCalls } from '../../support/guest-call.ts';
import type { TdOptions } from '../../support/ready-td.ts';
import { idOf, type Vcpu, vcpu, vmcsId } from '../../support/vcpu-metadata.ts';

const ALL = 0xffff_ffff_ffff_ffffn;
const DEBUG = 1n;
const NOT_VALID = STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
const NOT_WRITABLE = STATUS.TDX_METADATA_FIELD_NOT_WRITABLE;

describe('VMCS fields of a debug TD', () => {
  it('changes of CR0 what the TD owns, and keeps EFER.LMA in step', () => {
    const { write, value } = vcpu({ attributes: DEBUG });
    const CR0 = vmcsId(VMCS.GUEST_CR0);
    const EFER = vmcsId(VMCS.GUEST_EFER);
    const PG = 1n << 31n;
    const shadow = value(vmcsId(VMCS.CR0_SHADOW));
    expect(write(CR0, shadow | (1n << 30n))).toBe(NOT_VALID);
    expect(write(CR0, shadow & ~1n)).toBe(NOT_VALID);
    expect(write(CR0, shadow | PG | (1n << 16n))).toBe(0n);
    expect(value(CR0)).toBe(0x21n | PG | (1n << 16n));
    expect(value(EFER)).toBe(0xd01n);
    expect(write(EFER, 0x801n)).toBe(0n);
    expect(write(EFER, 0xd01n & ~0x400n)).toBe(0n);
    expect(value(EFER)).toBe(0xd01n);
    expect(write(CR0, shadow & ~PG)).toBe(0n);
    expect(value(EFER)).toBe(0x901n);
  });

  it('takes any CR4.MCE and shows it in the read shadow, even of a write that is refused', () => {
    const { write, value } = vcpu({ attributes: DEBUG });
    const CR4 = vmcsId(VMCS.GUEST_CR4);
    const SHADOW = vmcsId(VMCS.CR4_SHADOW);
    const MCE = 1n << 6n;
    const shadow = value(SHADOW);
    expect(write(CR4, (shadow & ~MCE) | 0x20n)).toBe(0n);
    expect([value(SHADOW) & MCE, value(CR4)]).toEqual([0n, 0x2060n]);
    expect(write(CR4, shadow | MCE | (1n << 13n))).toBe(NOT_VALID);
    expect(value(SHADOW) & MCE).toBe(MCE);
  });

  it('takes only a private address in CR3, with linear address masking where the CPU has it', () => {
    const debug = vcpu({ attributes: DEBUG });
    const CR3 = vmcsId(VMCS.GUEST_CR3);
    expect(debug.write(CR3, 0x1234_5fffn)).toBe(0n);
    for (const bit of [47n, 48n, 52n, 60n, 63n]) expect(debug.write(CR3, 1n << bit)).toBe(NOT_VALID);
    const { lam } = debug.t.module.platform!.features;
    for (const bit of [61n, 62n]) expect(debug.write(CR3, 1n << bit)).toBe(lam ? 0n : NOT_VALID);
  });

  it('keeps uncore interrupts in IA32_DEBUGCTL as the host has them', () => {
    const { write, value, t } = vcpu({ attributes: DEBUG });
    const DEBUGCTL = vmcsId(VMCS.GUEST_DEBUGCTL);
    expect(write(DEBUGCTL, 0x2049n, 0xffffn)).toBe(NOT_VALID);
    expect(write(DEBUGCTL, 0x2041n, 0xffc7n)).toBe(0n);
    expect(value(DEBUGCTL)).toBe(0x41n);
    t.machine.lps[0]!.wrmsr(0x1d9, 1n << 13n);
    expect(write(DEBUGCTL, 0n, 1n)).toBe(0n);
    expect(value(DEBUGCTL)).toBe(0x2040n);
  });

  it('needs a valid address for page modification logging', () => {
    const { write, value } = vcpu({ attributes: DEBUG });
    const CTLS2 = vmcsId(VMCS.PROCBASED_CTLS2);
    const PML = vmcsId(VMCS.PML_ADDRESS);
    expect(write(CTLS2, 1n << 17n, 1n << 17n)).toBe(NOT_VALID);
    expect(value(PML)).toBe(ALL);
    for (const address of [0x3_c000_0000n, 1n << 51n]) expect(write(PML, address)).toBe(NOT_VALID);
    expect(write(PML, 0x20_0000n)).toBe(0n);
    expect(value(PML)).toBe(0x20_0000n);
    expect(write(CTLS2, 1n << 17n, 1n << 17n)).toBe(0n);
  });
});

describe('VMCS fields that every host writes', () => {
  it('turns posted interrupts on once vector and descriptor are set', () => {
    const { write, value, t } = vcpu();
    const PIN = vmcsId(VMCS.PINBASED_CTLS);
    const VECTOR = vmcsId(VMCS.POSTED_INTERRUPT_NOTIFICATION_VECTOR);
    const DESCRIPTOR = vmcsId(VMCS.POSTED_INTERRUPT_DESCRIPTOR);
    const uninitialised = (code: number): bigint => STATUS.TDX_TD_VMCS_FIELD_NOT_INITIALIZED | BigInt(code);
    expect(write(PIN, 0x80n, 0x80n)).toBe(uninitialised(VMCS.POSTED_INTERRUPT_NOTIFICATION_VECTOR));
    expect(write(VECTOR, 256n, 0xffffn)).toBe(NOT_VALID);
    expect(write(VECTOR, 0xf2n, 0xffffn)).toBe(0n);
    expect(write(PIN, 0x80n, 0x80n)).toBe(uninitialised(VMCS.POSTED_INTERRUPT_DESCRIPTOR));
    expect(write(DESCRIPTOR, 0x1020n)).toBe(NOT_VALID);
    expect(write(DESCRIPTOR, 0x1040n)).toBe(0n);
    expect(write(PIN, 0x80n, 0x80n)).toBe(0n);
    expect(value(PIN)).toBe(0x80n);
    const tdvps = t.td.tdvps(Number(t.tdvpr))!;
    expect(tdvps.u64(TDVPS.SHADOW_PID_HPA)).toBe(0x1040n);
    expect(tdvps.u16(TDVPS.SHADOW_POSTED_INT_NOTIFICATION_VECTOR)).toBe(0xf2);
    expect(tdvps.u32(TDVPS.SHADOW_PINBASED_EXEC_CTLS) & 0x80).toBe(0x80);
  });

  it('takes a shared EPT only outside private memory', () => {
    const { write, value, t } = vcpu();
    const EPTP = vmcsId(VMCS.SHARED_EPTP);
    expect(write(EPTP, 0x3_c000_0000n, 0xfffff_ffff_f000n)).toBe(NOT_VALID);
    expect(write(EPTP, 0x10_0000n, 0xfffff_ffff_f000n)).toBe(0n);
    expect(value(EPTP)).toBe(0x10_0000n);
    expect(t.td.tdvps(Number(t.tdvpr))!.u64(TDVPS.SHADOW_SHARED_EPTP)).toBe(0x10_0000n);
  });
});

describe('TDVPS fields of a debug TD', () => {
  it('keeps the XSAVE header and the trace control of XBUFF from the host', () => {
    const XFAM_WITH_TRACE = 0x103n;
    const { write, value, t } = vcpu({ attributes: DEBUG, xfam: XFAM_WITH_TRACE });
    const XBUFF = idOf('XBUFF');
    for (const number of [64n, 65n, 71n]) expect(write(XBUFF + number, 1n)).toBe(NOT_WRITABLE);
    expect(value(XBUFF + 65n)).toBe(1n << 63n);
    for (const number of [0n, 63n, 200n]) expect(write(XBUFF + number, 5n)).toBe(0n);
    const trace = BigInt(t.td.tdcs.u32(TDCS.XBUFF_OFFSETS + 32)) / 8n;
    expect(write(XBUFF + trace, 1n)).toBe(NOT_WRITABLE);
    const without = vcpu({ attributes: DEBUG });
    expect(without.write(XBUFF, 1n)).toBe(0n);
  });

  it('takes IA32_MISC_ENABLE as from the guest', () => {
    const { write, value, t } = vcpu({ attributes: DEBUG });
    const MISC = idOf('IA32_MISC_ENABLE');
    const old = value(MISC);
    for (const bit of [1n, 22n, 24n, 40n, 56n, 63n]) expect(write(MISC, old | (1n << bit))).toBe(NOT_VALID);
    expect(write(MISC, old ^ (1n << 18n))).toBe(NOT_VALID);
    expect(write(MISC, old ^ 0x1880n)).toBe(0n);
    expect(value(MISC)).toBe(old);
    expect(write(MISC, old ^ 1n)).toBe(0n);
    expect(t.td.tdvps(Number(t.tdvpr))!.u64(TDVPS.IA32_MISC_ENABLE)).toBe(old ^ 1n);
  });

  it('shows IA32_SPEC_CTRL as the guest sees it', () => {
    const { write, value, t } = vcpu({ attributes: DEBUG });
    const SPEC = idOf('IA32_SPEC_CTRL');
    const ddpd = t.module.platform!.features.ddpd;
    expect(value(SPEC)).toBe(0n);
    expect(write(SPEC, 0x101n)).toBe(0n);
    expect(value(SPEC)).toBe(1n);
    expect(t.td.tdvps(Number(t.tdvpr))!.u64(TDVPS.IA32_SPEC_CTRL)).toBe(ddpd ? 0x101n : 1n);
  });
});

describe('fields of L2 VMs', () => {
  const L2 = 1;
  const withL2 = (options: TdOptions = {}): Vcpu & ReturnType<typeof guestCalls> & { set: typeof set } => {
    const made = vcpu({ l2Vms: 1, ...options });
    const guest = guestCalls(made.t);
    function set(id: bigint, value: bigint, mask = ALL): bigint {
      return guest.call(TDG.vpWr, { rdx: id, r8: value, r9: mask }).rax!;
    }
    return { ...made, ...guest, set };
  };
  const get = ({ call }: ReturnType<typeof withL2>, id: bigint): bigint =>
    call(TDG.vpRd, { rdx: id }).r8 ?? 0n;

  it('has those of the VMs that the TD has', () => {
    const { read, call } = withL2({ attributes: DEBUG });
    expect(read(vmcsId(VMCS.GUEST_RIP, 1)).r8).toBe(0xffff_fff0n);
    expect(read(vmcsId(VMCS.GUEST_RIP, 2)).rax).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
    expect(read(idOf('L2_MSR_BITMAPS_2')).rax).toBe(STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
    expect(call(TDG.vpRd, { rdx: vmcsId(VMCS.GUEST_RIP, 2) }).rax).toBe(
      STATUS.TDX_METADATA_FIELD_ID_INCORRECT,
    );
  });

  it('combines the owners of CR0 and of CR4, each when it is written', () => {
    const td = withL2();
    const base = td.t.td.tdvps(Number(td.t.tdvpr))!;
    const cr4Before = [td.vmcs(L2).read(VMCS.CR4_MASK), td.vmcs(L2).read(VMCS.CR4_SHADOW)];
    expect(get(td, vmcsId(VMCS.CR0_MASK, L2))).toBe(ALL);
    expect(td.set(vmcsId(VMCS.CR0_MASK, L2), 0x8n)).toBe(0n);
    expect(td.set(vmcsId(VMCS.CR0_SHADOW, L2), 0xfn)).toBe(0n);
    const owned = base.u64(TDVPS.BASE_L2_CR0_GUEST_HOST_MASK);
    const shadow = base.u64(TDVPS.BASE_L2_CR0_READ_SHADOW);
    expect(td.vmcs(L2).read(VMCS.CR0_MASK)).toBe(owned | 0x8n);
    expect(td.vmcs(L2).read(VMCS.CR0_SHADOW)).toBe((owned & shadow & ~0x8n) | 0x8n);
    expect(get(td, vmcsId(VMCS.CR0_SHADOW, L2))).toBe(0xfn);
    expect([td.vmcs(L2).read(VMCS.CR4_MASK), td.vmcs(L2).read(VMCS.CR4_SHADOW)]).toEqual(cr4Before);
    expect(td.set(vmcsId(VMCS.CR4_MASK, L2), 0n)).toBe(0n);
    expect(td.vmcs(L2).read(VMCS.CR4_MASK)).toBe(base.u64(TDVPS.BASE_L2_CR4_GUEST_HOST_MASK));
  });

  it('counts pauses in ticks of the TD', () => {
    const td = withL2();
    const GAP = vmcsId(VMCS.PLE_GAP, L2);
    const multiplier = td.t.td.tdcs.u64(TDCS.TSC_MULTIPLIER);
    expect(td.set(GAP, 1000n, 0xffff_ffffn)).toBe(0n);
    expect(td.vmcs(L2).read(VMCS.PLE_GAP)).toBe((1000n << 48n) / multiplier);
    expect(get(td, GAP)).toBe(1000n);
    // Faster than the CPU's counter, the TD's fills 32 bits with less time.
    const tooLong = 0xffff_ffffn;
    const fits = (tooLong << 48n) / multiplier < 2n ** 32n;
    expect(td.set(vmcsId(VMCS.PLE_WINDOW, L2), tooLong, 0xffff_ffffn)).toBe(fits ? 0n : NOT_VALID);
    expect(get(td, vmcsId(VMCS.PLE_WINDOW, L2))).toBe(tooLong);
  });

  it('keeps the guest’s APIC page as an address of the guest', () => {
    const td = withL2();
    const VAPIC = vmcsId(VMCS.VIRTUAL_APIC_PAGE, L2);
    const tdvps = td.t.td.tdvps(Number(td.t.tdvpr))!;
    tdvps.setU64(TDVPS.L2_VAPIC_HPA + 8, 0x1000n);
    expect(td.set(VAPIC, 1n << 47n, ~0xfffn & ALL)).toBe(NOT_VALID);
    expect(td.set(VAPIC, 0x5000n, ~0xfffn & ALL)).toBe(0n);
    expect(get(td, VAPIC)).toBe(0x5000n);
    expect(tdvps.u64(TDVPS.L2_VAPIC_HPA + 8)).toBe(ALL);
    expect(td.vmcs(L2).read(VMCS.VIRTUAL_APIC_PAGE)).toBe(ALL);
  });

  it('lets through to the L2 VM only MSRs that the TD itself has', () => {
    const td = withL2({ attributes: DEBUG });
    const id = idOf('L2_MSR_BITMAPS_1') + 3n;
    const own = td.t.td.tdcs.u64(TDCS.MSR_BITMAPS + 24);
    expect(get(td, id)).toBe(ALL);
    expect(td.set(id, 0xff00n)).toBe(0n);
    expect(get(td, id)).toBe(0xff00n);
    td.leave();
    expect(td.value(id)).toBe(own | 0xff00n);
    expect(td.value(idOf('L2_SHADOW_MSR_BITMAPS_1') + 3n)).toBe(0xff00n);
  });

  it('connects the shared EPT when L1 wants it', () => {
    const td = withL2();
    const EPTP = vmcsId(VMCS.SHARED_EPTP, L2);
    const CTLS = idOf('L2_CTLS') + BigInt(L2);
    const zeroPage = td.t.td.tdr.u64(TDR.TDCX_PA + 8 * TDCS_PAGE.ZERO);
    expect(td.write(EPTP, 0x10_0000n, 0xfffff_ffff_f000n)).toBe(0n);
    expect(td.vmcs(L2).read(VMCS.SHARED_EPTP)).toBe(zeroPage);
    expect(td.value(EPTP)).toBe(0x10_0000n);
    expect(td.set(CTLS, 1n, 3n)).toBe(0n);
    expect(td.vmcs(L2).read(VMCS.SHARED_EPTP)).toBe(0x10_0000n);
    td.leave();
    expect(td.write(EPTP, 0x20_0000n, 0xfffff_ffff_f000n)).toBe(0n);
    expect(td.vmcs(L2).read(VMCS.SHARED_EPTP)).toBe(0x20_0000n);
    expect(td.set(CTLS, 0n, 3n)).toBe(0n);
    expect(td.vmcs(L2).read(VMCS.SHARED_EPTP)).toBe(zeroPage);
  });

  it('turns a deadline of the TD into one of the CPU', () => {
    const td = withL2();
    const DEADLINE = idOf('TSC_DEADLINE') + BigInt(L2);
    const lp = td.t.machine.lps[0]!;
    lp.fixedTsc = 0x10_0000_0000n;
    const shadow = (): bigint => td.t.td.tdvps(Number(td.t.tdvpr))!.u64(TDVPS.SHADOW_TSC_DEADLINE + 8);
    expect(td.set(DEADLINE, 1n)).toBe(0n);
    expect(shadow()).toBe(lp.rdtsc());
    expect(td.set(DEADLINE, 1n << 40n)).toBe(0n);
    const offset = td.t.td.tdcs.u64(TDCS.TSC_OFFSET);
    const elapsed = BigInt.asUintN(64, (1n << 40n) - offset);
    expect(shadow()).toBe((elapsed << 48n) / td.t.td.tdcs.u64(TDCS.TSC_MULTIPLIER));
    const before = shadow();
    expect(td.set(DEADLINE, ALL - 1n)).toBe(STATUS.TDX_OPERAND_INVALID);
    expect(td.set(DEADLINE, ALL)).toBe(0n);
    expect([shadow(), get(td, DEADLINE)]).toEqual([before, ALL]);
    expect(td.set(idOf('TSC_DEADLINE'), ALL - 1n)).toBe(0n);
  });

  it('lets L1 set controls that its virtual capabilities allow', () => {
    const td = withL2();
    const MWAIT_EXITING = 1n << 10n;
    const RDPMC_EXITING = 1n << 11n;
    const HLT_EXITING = 1n << 7n;
    expect(td.set(vmcsId(VMCS.PROCBASED_CTLS, L2), MWAIT_EXITING, MWAIT_EXITING)).toBe(NOT_WRITABLE);
    expect(td.set(vmcsId(VMCS.PROCBASED_CTLS, L2), 0n, 1n << 2n)).toBe(0n);
    expect(td.set(vmcsId(VMCS.PROCBASED_CTLS, L2), 4n, HLT_EXITING | 4n)).toBe(NOT_VALID);
    // Only a TD with performance monitoring has counters to let through.
    expect(td.set(vmcsId(VMCS.PROCBASED_CTLS, L2), 0n, RDPMC_EXITING)).toBe(NOT_VALID);
    expect(td.set(vmcsId(VMCS.PROCBASED_CTLS3, L2), 2n, 2n)).toBe(0n);
    expect(td.set(vmcsId(VMCS.EPTP, L2), 0x80n, 0x80n)).toBe(NOT_VALID);
    const SHADOW_STACKS = 0x1807n;
    expect(withL2({ xfam: SHADOW_STACKS }).set(vmcsId(VMCS.EPTP, L2), 0x80n, 0x80n)).toBe(0n);
  });
});
