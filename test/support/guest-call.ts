/** TDCALLs of a TD's vCPU, executed one at a time between calls of the host. */
import { TDH } from '../../src/abi/leaves.ts';
import { REGISTER_NAMES, type RegisterName } from '../../src/abi/registers.ts';
import { EXIT } from '../../src/abi/vm-exit.ts';
import { deliverExit } from '../../src/module/guest/dispatcher.ts';
import type { RunningVcpu } from '../../src/module/guest/running-vcpu.ts';
import type { VmExit } from '../../src/module/guest/vm-exit.ts';
import { VMCS } from '../../src/module/td/vmcs.ts';
import type { ReadyTd } from './ready-td.ts';

const TDCALL: VmExit = {
  reason: EXIT.TDCALL,
  qualification: 0n,
  linearAddress: 0n,
  physicalAddress: 0n,
  interruptionInfo: 0,
  errorCode: 0,
  instructionLength: 4,
  instructionInfo: 0,
  idtVectoringInfo: 0,
};
const INTERRUPT: VmExit = { ...TDCALL, reason: EXIT.EXTERNAL_INTERRUPT, interruptionInfo: 0x8000_0020 };
const LONG_MODE = { csAr: 0xa09bn, efer: 0xd01n, cr0: 0x8000_0021n } as const;

/** A TD's vCPU on LP 0. */
export interface GuestCalls {
  /** Executes a TDCALL in 64-bit mode and returns the registers that are not zero afterwards. */
  readonly call: (
    leaf: number,
    operands?: Partial<Record<RegisterName, bigint>>,
  ) => Partial<Record<RegisterName, bigint>>;
  /** Lets an interrupt of the host take the vCPU out, so that the host can access it. */
  readonly leave: () => void;
}

/** The vCPU of `t`, which must be runnable; it is entered whenever it has something to do. */
export function guestCalls(t: ReadyTd): GuestCalls {
  const entered = (): RunningVcpu => {
    const running = t.module.running[0];
    if (running !== undefined) return running;
    t.status(TDH.vpEnter, { rcx: t.tdvpr });
    const vcpu = t.module.running[0];
    if (vcpu === undefined) throw new Error('the vCPU could not be entered');
    vcpu.vmcs.write(VMCS.GUEST_CS_AR, LONG_MODE.csAr);
    vcpu.vmcs.write(VMCS.GUEST_EFER, LONG_MODE.efer);
    vcpu.vmcs.write(VMCS.GUEST_CR0, LONG_MODE.cr0);
    return vcpu;
  };
  return {
    call: (leaf, operands = {}) => {
      const vcpu = entered();
      REGISTER_NAMES.forEach((name, i) => {
        vcpu.regs.q[i] = operands[name] ?? 0n;
      });
      vcpu.regs.q[0] = BigInt(leaf);
      deliverExit(vcpu, TDCALL);
      const left: Partial<Record<RegisterName, bigint>> = {};
      REGISTER_NAMES.forEach((name, i) => {
        if (vcpu.regs.q[i] !== 0n || name === 'rax') left[name] = vcpu.regs.q[i]!;
      });
      return left;
    },
    leave: () => {
      const vcpu = t.module.running[0];
      if (vcpu !== undefined) deliverExit(vcpu, INTERRUPT);
    },
  };
}
