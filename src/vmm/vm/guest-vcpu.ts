/** A vCPU as user space has it: its descriptor and the run page that it shares with the kernel. */

import { hex } from '../../abi/address.ts';
import {
  KVM_EXIT,
  KVM_RUN_COMMON,
  KVM_RUN_EXIT_BYTES,
  KVM_RUN_EXIT_OFFSET,
  type KvmExitName,
} from '../../abi/kvm/exits.ts';
import { KVM } from '../../abi/kvm/ioctl.ts';
import { doing } from './doing.ts';
import type { GuestVm } from './guest-vm.ts';
import { mapFile } from './user-memory.ts';

/** @public */
export interface GuestVcpu {
  readonly index: number;
  readonly fd: number;
  /** Where the process has mapped struct kvm_run. */
  readonly runAddress: number;
}

/** KVM_CREATE_VCPU, and its run page mapped. The vCPU's id is its index. @public */
export async function addVcpu(vm: GuestVm): Promise<GuestVcpu> {
  const { calls, owned } = vm;
  const index = vm.vcpus.length;
  return doing(`creating vCPU ${index}`, async () => {
    const fd = await calls.ioctl(vm.fd, KVM.CREATE_VCPU, index);
    owned.add(() => calls.close(fd));
    const bytes = await calls.ioctl(vm.kvm, KVM.GET_VCPU_MMAP_SIZE);
    const runAddress = await mapFile(calls, fd, bytes);
    owned.add(() => calls.munmap(runAddress, bytes));
    const vcpu = { index, fd, runAddress };
    vm.vcpus.push(vcpu);
    return vcpu;
  });
}

/** What KVM_RUN left in the run page: the exit reason, and the union's bytes. @public */
export async function readExit(
  { calls }: Pick<GuestVm, 'calls'>,
  { runAddress }: GuestVcpu,
): Promise<{ readonly reason: number; readonly union: Uint8Array }> {
  const bytes = await calls.load(runAddress, KVM_RUN_EXIT_OFFSET + KVM_RUN_EXIT_BYTES);
  const { exit_reason: reason } = KVM_RUN_COMMON.decode(bytes);
  return { reason, union: bytes.slice(KVM_RUN_EXIT_OFFSET) };
}

/** Writes the union back, with user space's answer. @public */
export async function writeUnion(
  { calls }: Pick<GuestVm, 'calls'>,
  { runAddress }: GuestVcpu,
  union: Uint8Array,
): Promise<void> {
  await calls.store(runAddress + KVM_RUN_EXIT_OFFSET, union);
}

const NAMES = new Map<number, string>(
  (Object.entries(KVM_EXIT) as [KvmExitName, number][]).map(([name, reason]) => [reason, name]),
);

/** `MEMORY_FAULT`. @public */
export function exitName(reason: number): string {
  return NAMES.get(reason) ?? `exit ${hex(reason)}`;
}
