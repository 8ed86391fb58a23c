/** A TD's vCPU that stays entered on LP 0, and VM exits of it one at a time. */
import { TDH } from '../../src/abi/leaves.ts';
import { RAX, REGISTER_NAMES, type RegisterName } from '../../src/abi/registers.ts';
import { EXIT } from '../../src/abi/vm-exit.ts';
import { deliverExit } from '../../src/module/guest/dispatcher.ts';
import type { RunningVcpu } from '../../src/module/guest/running-vcpu.ts';
import type { GuestOutcome, VmExit } from '../../src/module/guest/vm-exit.ts';
import { VMCS } from '../../src/module/td/vmcs.ts';
import type { ReadyTd } from './ready-td.ts';

type Operands = Partial<Record<RegisterName, bigint>>;

const NOTHING: VmExit = {
  reason: 0,
  qualification: 0n,
  linearAddress: 0n,
  physicalAddress: 0n,
  interruptionInfo: 0,
  errorCode: 0,
  instructionLength: 2,
  instructionInfo: 0,
  idtVectoringInfo: 0,
};
const LONG_MODE = { csAr: 0xa09bn, efer: 0xd01n, cr0: 0x8000_0021n } as const;
const VALID = 0x8000_0000;

/** What came of an exit. */
export interface ExitEffect {
  readonly outcome: GuestOutcome;
  /** The guest's registers, or the host's when it exited. */
  readonly regs: BigUint64Array;
  /** Vector of the event that is injected. */
  readonly vector: number | undefined;
}

export interface GuestExits {
  /** The vCPU, entered when it is not. */
  readonly vcpu: () => RunningVcpu;
  readonly exit: (event: Partial<VmExit> & { readonly reason: number }, operands?: Operands) => ExitEffect;
  /** TDCALL; `leaf` may have a version in bits 23:16. */
  readonly tdcall: (leaf: number, operands?: Operands) => ExitEffect;
}

/** Exits of the vCPU of `t`, which must be runnable. Its code is 64-bit code. */
export function guestExits(t: ReadyTd): GuestExits {
  const lp = t.machine.lps[0]!;
  const vcpu = (): RunningVcpu => {
    if (t.module.running[0] === undefined) t.status(TDH.vpEnter, { rcx: t.tdvpr });
    const running = t.module.running[0];
    if (running === undefined) throw new Error('the vCPU could not be entered');
    running.vmcs.write(VMCS.GUEST_CS_AR, LONG_MODE.csAr);
    running.vmcs.write(VMCS.GUEST_EFER, LONG_MODE.efer);
    running.vmcs.write(VMCS.GUEST_CR0, LONG_MODE.cr0);
    return running;
  };
  const exit: GuestExits['exit'] = (event, operands = {}) => {
    const running = vcpu();
    REGISTER_NAMES.forEach((name, i) => {
      running.regs.q[i] = operands[name] ?? 0n;
    });
    const outcome = deliverExit(running, { ...NOTHING, ...event });
    const info = running.vmcs.read32(VMCS.ENTRY_INTERRUPTION_INFO);
    return {
      outcome,
      regs: (outcome === 'exited' ? lp.regs : running.regs).q.slice(),
      vector: outcome === 'injected' && info >= VALID ? info & 0xff : undefined,
    };
  };
  return {
    vcpu,
    exit,
    tdcall: (leaf, operands = {}) => exit({ reason: EXIT.TDCALL }, { ...operands, rax: BigInt(leaf) }),
  };
}

/** RAX of an effect. */
export function statusOf({ regs }: ExitEffect): bigint {
  return regs[RAX]!;
}
