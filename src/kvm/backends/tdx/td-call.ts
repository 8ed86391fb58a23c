/** SEAMCALLs of KVM: operands in registers, status out; what a leaf puts out stays in the processor's registers. */

import { KernelError, type Reason } from '../../../abi/errno.ts';
import { hostLeafName, TDH } from '../../../abi/leaves.ts';
import { formatStatus, STATUS_NAME_MASK } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import type { Cpu } from '../../../kernel/cpu.ts';
import { seamcall, setOperands } from '../../../kernel/seamcall.ts';
import type { Vm } from '../../vm.ts';

/** VP.INIT in its version 1, which takes the x2APIC id in R8. @internal */
export const VP_INIT_V1 = TDH.vpInit | (1 << 16);

/** @internal */
export function tdCall(cpu: Cpu, leaf: number, rcx: number, rdx = 0, r8 = 0, r9 = 0): bigint {
  setOperands(cpu, rcx, rdx, r8, r9);
  return seamcall(cpu, leaf);
}

/** TDX_OPERAND_BUSY, on whatever operand. @internal */
export function isBusy(status: bigint): boolean {
  return (status & STATUS_NAME_MASK) === STATUS.TDX_OPERAND_BUSY;
}

/** TDX_OPERAND_INVALID, on whatever operand. @internal */
export function isInvalidOperand(status: bigint): boolean {
  return (status & STATUS_NAME_MASK) === STATUS.TDX_OPERAND_INVALID;
}

/**
 * A SEAMCALL that must not fail has: the VM is broken, and the policy `onError` says what else follows. Returns the error
 * to throw.
 * @internal
 */
export function bugOn(vm: Vm, leaf: number, status: bigint, data: Record<string, unknown> = {}): KernelError {
  const { kernel, process } = vm;
  const reason = failure(vm, leaf, status, data);
  const error = vm.bug(reason.text, { ...reason.data });
  const { onError } = kernel.policy;
  if (onError === 'shutdown') kernel.shutDownTdx(reason);
  // The VMM is killed: its files are closed once the call under way has ended, and the TD goes with them.
  if (onError === 'kill-td') void process.exit();
  return error;
}

/**
 * The module did not take what KVM offered, and has kept nothing of it: `bugOn`, but under `onError=refuse` the VM goes on
 * and only the request fails. Returns the error to throw.
 * @internal
 */
export function notTaken(
  vm: Vm,
  leaf: number,
  status: bigint,
  data: Record<string, unknown> = {},
): KernelError {
  if (vm.kernel.policy.onError !== 'refuse') return bugOn(vm, leaf, status, data);
  const reason = failure(vm, leaf, status, data);
  return new KernelError('EIO', reason.code, reason.text, { ...reason.data });
}

function failure({ kernel }: Vm, leaf: number, status: bigint, data: Record<string, unknown>): Reason {
  const leafName = hostLeafName(leaf & 0xffff);
  const statusName = formatStatus(status);
  kernel.log.write('err', KVM_PREFIX, `SEAMCALL ${leafName} failed: ${statusName}`, 'kvm-seamcall-failed');
  const text = `${leafName} failed with ${statusName}`;
  return { code: 'seamcall-failed', text, data: { leafName, status, statusName, ...data } };
}

/** What KVM's own log lines begin with. @internal */
export const KVM_PREFIX = 'kvm_intel';
