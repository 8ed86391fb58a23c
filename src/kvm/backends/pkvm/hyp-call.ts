/** Calls of the hypervisor, and what the kernel makes of its refusals. */
import { KernelError } from '../../../abi/errno.ts';
import { errnoOf, SMCCC, setSignedRegister, signedRegister, X } from '../../../abi/pkvm.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';

/** The result of a hypercall: 0 or more, or a negative errno. Throws Error for a function that there is not. @internal */
export function hypCall(lp: LogicalProcessor, call: number, ...args: readonly number[]): number {
  const { regs } = lp;
  setSignedRegister(regs, X.x0, call);
  for (let i = 0; i < 4; i++) setSignedRegister(regs, X.x1 + i, args[i] ?? 0);
  lp.hvc();
  if (signedRegister(regs, X.x0) !== SMCCC.success) {
    throw new Error(`the hypervisor does not know call 0x${call.toString(16)}`);
  }
  return signedRegister(regs, X.x1);
}

/** The errno of a refusal, with what was asked for. @internal */
export function refusal(result: number, what: string, data: Record<string, unknown> = {}): KernelError {
  return new KernelError(errnoOf(result), 'pkvm-refused', `the hypervisor refused to ${what}`, data);
}
