/** SEAMCALLs of KVM: operands in registers, status out; what a leaf puts out stays in the processor's registers. */

import type { KernelError } from '../../../abi/errno.ts';
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

/** A SEAMCALL that must not fail has: the VM is broken. Returns the error to throw. @internal */
export function bugOn(vm: Vm, leaf: number, status: bigint, data: Record<string, unknown> = {}): KernelError {
  const leafName = hostLeafName(leaf & 0xffff);
  const statusName = formatStatus(status);
  vm.kernel.log.write('err', KVM_PREFIX, `SEAMCALL ${leafName} failed: ${statusName}`, 'kvm-seamcall-failed');
  return vm.bug(`${leafName} failed with ${statusName}`, { leafName, status, statusName, ...data });
}

/** What KVM's own log lines begin with. @internal */
export const KVM_PREFIX = 'kvm_intel';
