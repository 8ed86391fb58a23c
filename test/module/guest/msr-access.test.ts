import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TDG } from '../../../src/abi/leaves.ts';
import { MSR_POLICIES } from '../../../src/abi/msr-policy.ts';
import { RAX, RCX, RDX } from '../../../src/abi/registers.ts';
import { EXIT } from '../../../src/abi/vm-exit.ts';
import { isMsrDirect } from '../../../src/module/td/msr-bitmaps.ts';
import { VMCS } from '../../../src/module/td/vmcs.ts';
import { type GuestExits, guestExits, statusOf } from '../../support/guest-exits.ts';
import { readyTd } from '../../support/ready-td.ts';
import '../../support/seed.ts';

const GP = 13;
const VE = 20;
const TD_CTLS = 0x9110_0003_0000_0017n;
/** ENUM_TOPOLOGY, VIRT_CPUID2 and REDUCE_VE. */
const REDUCED = 0xen;
const CATEGORY = { CONFIG: 0x10n, NON_CONFIG: 0x11n, UNSUPPORTED: 0x80n } as const;

interface MsrGuest {
  readonly guest: GuestExits;
  readonly read: (msr: number) => bigint | 'gp' | { readonly ve: bigint };
  readonly write: (msr: number, value: bigint) => 'done' | 'gp' | { readonly ve: bigint };
}

function msrGuest(options: Parameters<typeof readyTd>[0] = {}, controls = 0n): MsrGuest {
  const guest = guestExits(readyTd({ runnable: true, x2apicId: 7n, ...options }));
  if (controls !== 0n) {
    expect(statusOf(guest.tdcall(TDG.vmWr, { rdx: TD_CTLS, r8: controls, r9: controls }))).toBe(0n);
  }
  const refusal = (vector: number | undefined): 'gp' | { ve: bigint } => {
    if (vector === GP) return 'gp';
    expect(vector).toBe(VE);
    const { regs } = guest.tdcall(TDG.vpVeinfoGet | (1 << 16));
    return { ve: regs[RCX]! >> 32n };
  };
  return {
    guest,
    read: (msr) => {
      const { outcome, regs, vector } = guest.exit({ reason: EXIT.RDMSR }, { rcx: BigInt(msr) });
      return outcome === 'resumed' ? (regs[RDX]! << 32n) | regs[RAX]! : refusal(vector);
    },
    write: (msr, value) => {
      const operands = { rcx: BigInt(msr), rax: value & 0xffff_ffffn, rdx: value >> 32n };
      const { outcome, vector } = guest.exit({ reason: EXIT.WRMSR }, operands);
      return outcome === 'resumed' ? 'done' : refusal(vector);
    },
  };
}

describe('an MSR that the module answers', () => {
  it('is refused with a #VE by kind: for the monitor, by configuration, or unknown to it', () => {
    const { read } = msrGuest();
    expect(read(0x1b)).toEqual({ ve: CATEGORY.NON_CONFIG }); // IA32_APIC_BASE
    expect(read(0x3b)).toEqual({ ve: CATEGORY.CONFIG }); // IA32_TSC_ADJUST
    expect(read(0x1ffe)).toEqual({ ve: CATEGORY.CONFIG }); // nobody's
    expect(read(0x2000)).toEqual({ ve: CATEGORY.NON_CONFIG }); // beyond the bitmaps
    expect(read(0x4b56_4d00)).toEqual({ ve: CATEGORY.NON_CONFIG }); // a monitor's own
  });

  it('is refused with #GP once the TD reduces its #VEs', () => {
    const { read, write } = msrGuest({}, REDUCED);
    expect(read(0x3b)).toBe('gp');
    expect(read(0x1ffe)).toBe('gp');
    expect(write(0x79, 1n)).toBe('done');
    expect(read(0x8b)).toBe(0xffff_ffffn);
    expect(read(0x3a)).toBe(1n);
    expect(write(0x34, 5n)).toBe('done');
    expect(read(0x34)).toBe(5n);
    expect(write(0x140, 1n)).toBe('gp');
    expect(read(0x802)).toBe(7n);
  });

  it('reads as the TD is configured', () => {
    const { read } = msrGuest();
    expect(read(0x345)).toBe(0n); // no performance monitoring
    expect(read(0xbd)).toBe(1n);
    expect(read(0x802)).toEqual({ ve: CATEGORY.CONFIG });
    expect(read(0x480)).toBe(0b111n << 54n);
    expect(read(0x481)).toEqual({ ve: CATEGORY.CONFIG });
  });

  it('takes a write of what the TD may change and refuses the rest', () => {
    const { write, guest } = msrGuest();
    const efer = guest.vcpu().vmcs.read(VMCS.GUEST_EFER);
    expect(write(0xc000_0080, efer & ~1n)).toBe('done');
    expect(write(0xc000_0080, efer ^ (1n << 11n))).toEqual({ ve: CATEGORY.UNSUPPORTED });
    expect(write(0xda0, 1n << 11n)).toBe('gp');
    expect(write(0xda0, 0n)).toBe('done');
    expect(write(0x1d9, 1n << 3n)).toBe('gp');
    expect(write(0x1d9, 1n << 6n)).toEqual({ ve: CATEGORY.UNSUPPORTED });
    expect(write(0x1d9, 1n << 14n)).toBe('gp');
    expect(write(0x1d9, 0b10n)).toBe('done');
    expect(guest.vcpu().vmcs.read(VMCS.GUEST_DEBUGCTL)).toBe(0b10n);
    expect(write(0x480, 0n)).toBe('gp');
    expect(write(0x186, 0n)).toBe('gp');
  });

  it('hides the uncore PMI control, whatever a TD writes to it', () => {
    const { write, read, guest } = msrGuest();
    expect(write(0x1d9, 1n << 13n)).toBe('done');
    expect(guest.vcpu().vmcs.read(VMCS.GUEST_DEBUGCTL)).toBe(0n);
    expect(read(0x1d9)).toBe(0n);
  });

  it('is answered by value, #GP or #VE, whichever it is and whatever is written', () => {
    const guests = [msrGuest(), msrGuest({}, REDUCED)];
    const known = fc.constantFrom(...MSR_POLICIES.flatMap(({ start, end }) => [start, end]));
    const msr = fc.oneof(known, fc.integer({ min: 0, max: 0xffff_ffff }));
    const value = fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn });
    fc.assert(
      fc.property(
        fc.constantFrom(...guests),
        msr,
        value,
        fc.boolean(),
        ({ guest, read, write }, at, to, writes) => {
          const { tdcs } = guest.vcpu();
          fc.pre(!isMsrDirect(tdcs, at, writes ? 'write' : 'read'));
          const rip = guest.vcpu().vmcs.read(VMCS.GUEST_RIP);
          const answer = writes ? write(at, to) : read(at);
          const moved = guest.vcpu().vmcs.read(VMCS.GUEST_RIP) - rip;
          // A #VE is asked about with a TDCALL, which moves the guest as an answered access does.
          expect(BigInt.asUintN(64, moved)).toBe(answer === 'gp' ? 0n : 2n);
          if (typeof answer === 'bigint') expect(answer).toBeLessThan(1n << 64n);
        },
      ),
      { numRuns: 600 },
    );
  });
});
