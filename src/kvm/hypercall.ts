/** Hypercalls in KVM's convention, whatever instruction brings them. */
import { PAGE_4K } from '../abi/address.ts';
import { KVM_HC_MAP_GPA_RANGE, KVM_RUN_EXIT } from '../abi/kvm/exits.ts';
import type { VcpuExit } from './vcpu-exit.ts';
import type { Vm } from './vm.ts';

/** What guests get for hypercalls that there are not, and for bad operands (include/uapi/linux/kvm_para.h). @public */
export const KVM_ENOSYS = 1000n;
/** @public */
export const KVM_EINVAL = 22n;

const PAGE = BigInt(PAGE_4K);

/** True when user space has asked for hypercall `nr` (KVM_CAP_EXIT_HYPERCALL). @public */
export function exitsOnHypercall(vm: Vm, nr: number): boolean {
  return ((vm.hypercallExits >> BigInt(nr)) & 1n) === 1n;
}

/** The exit of a hypercall, which ends with `finish` given what the guest is to have; or what it returns at once. @public */
export function hypercall(
  vm: Vm,
  nr: number,
  args: readonly bigint[],
  finish: (returns: bigint) => void,
): VcpuExit | { readonly returns: bigint } {
  if (nr !== KVM_HC_MAP_GPA_RANGE || !exitsOnHypercall(vm, nr)) return { returns: -KVM_ENOSYS };
  const [gpa = 0n, pages = 0n, attributes = 0n] = args;
  const gfn = gpa / PAGE;
  if (gpa % PAGE !== 0n || pages === 0n || BigInt.asUintN(64, gfn + pages) <= gfn) {
    return { returns: -KVM_EINVAL };
  }
  const complete = (union: Uint8Array): void => finish(KVM_RUN_EXIT.HYPERCALL.decode(union).ret);
  return { kind: 'hypercall', nr, args: [gpa, pages, attributes], isLongMode: true, complete };
}
