/** Which accesses of a guest the CPU performs itself, as its VMCS and MSR bitmaps say. */
import { RCX, RSP } from '../../abi/registers.ts';
import { EXIT } from '../../abi/vm-exit.ts';
import { isMsrDirect } from '../td/msr-bitmaps.ts';
import { VMCS } from '../td/vmcs.ts';
import type { RunningVcpu } from './running-vcpu.ts';
import type { VmExit } from './vm-exit.ts';

const MOV_TO_CR = 0;

/** False when the CPU performs the access that `exit` describes without a VM exit. @public */
export function isIntercepted(vcpu: RunningVcpu, exit: VmExit): boolean {
  const msr = vcpu.regs.d[2 * RCX]!;
  if (exit.reason === EXIT.RDMSR) return !isMsrDirect(vcpu.tdcs, msr, 'read');
  if (exit.reason === EXIT.WRMSR) return !isMsrDirect(vcpu.tdcs, msr, 'write');
  return exit.reason !== EXIT.CR_ACCESS || isCrAccessIntercepted(vcpu, exit);
}

/** A write exits when it changes a bit of the host's from what the guest reads there. */
function isCrAccessIntercepted({ vmcs, regs }: RunningVcpu, { qualification }: VmExit): boolean {
  const low = Number(qualification & 0xffffn);
  const register = (low >>> 8) & 0xf;
  const control = low & 0xf;
  if (((low >>> 4) & 0b11) !== MOV_TO_CR || (control !== 0 && control !== 4)) return true;
  const value = register === RSP ? vmcs.read(VMCS.GUEST_RSP) : regs.q[register]!;
  const [mask, shadow] = control === 0 ? [VMCS.CR0_MASK, VMCS.CR0_SHADOW] : [VMCS.CR4_MASK, VMCS.CR4_SHADOW];
  return ((value ^ vmcs.read(shadow)) & vmcs.read(mask)) !== 0n;
}
