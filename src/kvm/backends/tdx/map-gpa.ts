/** TDVMCALL MapGPA: user space converts memory, in chunks between which interrupts get their chance. */
import { PAGE_2M, PAGE_4K } from '../../../abi/address.ts';
import { ERRNO, KernelError } from '../../../abi/errno.ts';
import { KVM_HC_MAP_GPA_RANGE, KVM_MAP_GPA_RANGE, KVM_RUN_EXIT } from '../../../abi/kvm/exits.ts';
import { R10, R11, R12, R13 } from '../../../abi/registers.ts';
import { exitsOnHypercall } from '../../hypercall.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import { isLegalGpa, isPrivateGpa, withoutSharedBit } from './guest-address.ts';
import { hasPostedInterrupt } from './posted-interrupts.ts';
import { TDVMCALL_STATUS } from './tdvmcall-abi.ts';
import type { TdxVcpu } from './tdx-vcpu.ts';

/** Bytes of one chunk (TDX_MAP_GPA_MAX_LEN). */
const CHUNK = BigInt(PAGE_2M);
const PAGE = BigInt(PAGE_4K);
const U64 = 64;
const { ALIGN_ERROR, INVALID_OPERAND, RETRY, SUBFUNC_UNSUPPORTED } = TDVMCALL_STATUS;

/** R12: first address, whose shared bit says what the range shall be; R13: bytes. R11 is the address a refusal is about. @internal */
export function mapGpa(vcpu: TdxVcpu): VcpuExit {
  const { args } = vcpu;
  const gpa = args[R12]!;
  const refusal = refuse(vcpu, gpa, args[R13]!);
  return refusal === null ? chunk(vcpu, gpa, gpa + args[R13]!) : end(vcpu, refusal, gpa);
}

function refuse({ td }: TdxVcpu, gpa: bigint, size: bigint): bigint | null {
  if (!exitsOnHypercall(td.vm, KVM_HC_MAP_GPA_RANGE)) return SUBFUNC_UNSUPPORTED;
  const last = BigInt.asUintN(U64, gpa + size - 1n);
  if (BigInt.asUintN(U64, gpa + size) <= gpa || !isLegalGpa(td, gpa) || !isLegalGpa(td, last))
    return INVALID_OPERAND;
  if (isPrivateGpa(td, gpa) !== isPrivateGpa(td, last)) return INVALID_OPERAND;
  return gpa % PAGE === 0n && size % PAGE === 0n ? null : ALIGN_ERROR;
}

function chunk(vcpu: TdxVcpu, next: bigint, last: bigint): VcpuExit {
  const { td } = vcpu;
  const left = last - next;
  const pages = (left > CHUNK ? CHUNK : left) / PAGE;
  const attributes = isPrivateGpa(td, next) ? KVM_MAP_GPA_RANGE.ENC_STAT : 0n;
  return {
    kind: 'hypercall',
    nr: KVM_HC_MAP_GPA_RANGE,
    args: [BigInt(withoutSharedBit(td, next)), pages, attributes],
    isLongMode: true,
    complete: (answer) => chunkDone(vcpu, next, last, KVM_RUN_EXIT.HYPERCALL.decode(answer).ret),
  };
}

/** User space may ask the guest to try again (EAGAIN) or say that it cannot be (EINVAL); anything else is its mistake. */
function chunkDone(vcpu: TdxVcpu, next: bigint, last: bigint, ret: bigint): VcpuExit | undefined {
  if (ret === BigInt(ERRNO.EAGAIN)) return end(vcpu, RETRY, next);
  if (ret === BigInt(ERRNO.EINVAL)) return end(vcpu, INVALID_OPERAND, next);
  if (ret !== 0n) {
    throw new KernelError(
      'EINVAL',
      'map-gpa-answer',
      `hypercall.ret must be 0, EAGAIN or EINVAL, not ${ret}`,
      { ret },
    );
  }
  const following = next + CHUNK;
  if (following >= last) return undefined;
  return hasPostedInterrupt(vcpu, vcpu.vcpu.lp) ? end(vcpu, RETRY, following) : chunk(vcpu, following, last);
}

function end({ args }: TdxVcpu, status: bigint, gpa: bigint): VcpuExit {
  args[R10] = status;
  args[R11] = gpa;
  return { kind: 'handled' };
}
