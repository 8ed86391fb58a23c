/** What a guest leaf is to the TDCALL dispatcher. */
import type { Interrupted } from './gpa-access.ts';
import type { RunningVcpu } from './running-vcpu.ts';

/**
 * One guest leaf: guard clauses in the ABI's order, then the effect. Operands and outputs are in `vcpu.regs`; the
 * returned status goes to the guest's RAX. A leaf whose vCPU left, took a #VE on a memory operand, or stopped for an
 * event of the host (`interrupted`, to be called again) has none. `version` is RAX bits 23:16.
 * @internal
 */
export type GuestLeaf = (vcpu: RunningVcpu, version: number) => bigint | Interrupted | 'interrupted';
