/** VP.ENTER, and what its outcome is to KVM (Linux host rules 2.5). */

import { KVM_INTERNAL_ERROR } from '../../../abi/kvm/exits.ts';
import { TDH } from '../../../abi/leaves.ts';
import { R8, R9, R10, R11, RCX, RDX, setRegNumber } from '../../../abi/registers.ts';
import { STATUS_NAME_MASK, SW_STATUS } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { EXIT } from '../../../abi/vm-exit.ts';
import { seamcall } from '../../../kernel/seamcall.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import { pageFault } from './ept-violation.ts';
import { VP_FIELD, writeVcpuField } from './metadata.ts';
import { isBusy } from './td-call.ts';
import { guestHypercall, tdvmcall } from './tdvmcall.ts';
import type { TdxBackend } from './tdx-backend.ts';
import type { TdxVcpu } from './tdx-vcpu.ts';

const HANDLED: VcpuExit = { kind: 'handled' };
const INTERRUPT: VcpuExit = { kind: 'interrupt' };
const ERROR = 1n << 63n;
const NON_RECOVERABLE = 1n << 62n;
/** Exit reason, bits 31:0; bit 31 for an entry that failed. */
const REASON_MASK = 0xffff_ffffn;
const ENTRY_FAILED = 0x8000_0000n;
/** Interruption information: type NMI, and vector 18. */
const TYPE_MASK = 0x700n;
const NMI_TYPE = 0x200n;
const VECTOR_MASK = 0xffn;
const VECTOR_MC = 18n;

/** Statuses whose low half is an exit reason. */
const EXIT_STATUSES: ReadonlySet<bigint> = new Set([
  STATUS.TDX_SUCCESS,
  STATUS.TDX_NON_RECOVERABLE_VCPU,
  STATUS.TDX_NON_RECOVERABLE_TD,
  STATUS.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE,
  STATUS.TDX_NON_RECOVERABLE_TD_WRONG_APIC_MODE,
]);

/** One entry on the processor that the vCPU is loaded on. @internal */
export async function enterTd(backend: TdxBackend, vcpu: TdxVcpu): Promise<VcpuExit> {
  const { td } = vcpu;
  // A call that removes pages is being repeated: a vCPU that enters would keep the module busy again.
  if (td.waitsForZap) return INTERRUPT;
  const cpu = td.vm.kernel.cpus[vcpu.vcpu.cpu]!;
  td.host.processors.load(vcpu, cpu.index);
  if (!vcpu.sharedEptSet) {
    writeVcpuField(vcpu, cpu, VP_FIELD.SHARED_EPTP, BigInt(backend.sharedEpt.root));
    vcpu.sharedEptSet = true;
  }
  const { regs } = cpu.lp;
  regs.q.set(vcpu.args);
  setRegNumber(regs, RCX, vcpu.tdvpr);
  const status = seamcall(cpu, TDH.vpEnter);
  vcpu.args.set(regs.q);
  vcpu.haltedWithoutInterrupts = false;
  return decodeExit(backend, vcpu, status);
}

function decodeExit(backend: TdxBackend, vcpu: TdxVcpu, status: bigint): VcpuExit {
  const { vm } = vcpu.td;
  if (isBusy(status)) return INTERRUPT;
  if ((status & SW_STATUS.TDX_SW_ERROR) === SW_STATUS.TDX_SW_ERROR) {
    vm.bug('TDH.VP.ENTER did not reach the module', { status });
    return unexpected(vcpu, status);
  }
  const hasReason = EXIT_STATUSES.has(status & STATUS_NAME_MASK);
  const reason = Number(status & 0xffffn);
  if (hasReason && (status & ENTRY_FAILED) !== 0n) {
    return { kind: 'fail-entry', hardwareReason: status & REASON_MASK };
  }
  const isTripleFault = hasReason && reason === EXIT.TRIPLE_FAULT;
  if (isTripleFault) return { kind: 'shutdown' };
  if ((status & (ERROR | NON_RECOVERABLE)) !== 0n) return unexpected(vcpu, status);
  const { args } = vcpu;
  switch (reason) {
    case EXIT.EXTERNAL_INTERRUPT:
      return INTERRUPT;
    case EXIT.SMI:
      return HANDLED;
    case EXIT.EXCEPTION_OR_NMI: {
      const info = args[R9]!;
      const isHosts = (info & TYPE_MASK) === NMI_TYPE || (info & VECTOR_MASK) === VECTOR_MC;
      return isHosts ? HANDLED : unexpected(vcpu, status);
    }
    case EXIT.TDCALL:
      return args[R10] === 0n ? tdvmcall(vcpu, Number(args[R11]!)) : guestHypercall(vcpu);
    case EXIT.EPT_VIOLATION:
      return pageFault(backend, vcpu, { gpa: args[R8]!, qualification: args[RCX]!, extended: args[RDX]! });
    case EXIT.EPT_MISCONFIGURATION:
      throw vm.bug('the module reports a misconfigured EPT', { gpa: args[R8] });
    default:
      return unexpected(vcpu, status);
  }
}

function unexpected({ vcpu }: TdxVcpu, status: bigint): VcpuExit {
  return {
    kind: 'internal-error',
    suberror: KVM_INTERNAL_ERROR.UNEXPECTED_EXIT_REASON,
    data: [status, BigInt(vcpu.cpu)],
  };
}
