/** Builds VMs that nothing but the host's kernel protects: plain ones, and software-protected ones for testing. */
import { KVM_HC_MAP_GPA_RANGE } from '../../abi/kvm/exits.ts';
import { KVM_VM_TYPE } from '../../abi/kvm/vm-types.ts';
import type { SystemCalls } from '../../kernel/process/system-calls.ts';
import { setCpuid, supportedCpuid } from './cpuid.ts';
import { addMemory, setPrivate } from './guest-memory.ts';
import { addVcpu } from './guest-vcpu.ts';
import { GuestVm } from './guest-vm.ts';
import { DEFAULT_MEMORY_BYTES, layOutMemory } from './memory-layout.ts';

/** @public */
export interface VmOptions {
  /** Guest memory in bytes. Default 128 MiB. */
  readonly memoryBytes?: number;
  readonly vcpus?: number;
}

/** KVM_X86_DEFAULT_VM: anonymous memory, which the host sees as the guest does. @public */
export function buildPlain(calls: SystemCalls, options: VmOptions = {}): Promise<GuestVm> {
  return GuestVm.build(calls, KVM_VM_TYPE.DEFAULT, (vm) => complete(vm, options, false));
}

/** KVM_X86_SW_PROTECTED_VM: all memory private at first, in guest_memfds. @public */
export function buildSwProtected(calls: SystemCalls, options: VmOptions = {}): Promise<GuestVm> {
  return GuestVm.build(calls, KVM_VM_TYPE.SW_PROTECTED, (vm) => complete(vm, options, true));
}

async function complete(vm: GuestVm, options: VmOptions, isPrivate: boolean): Promise<void> {
  await vm.enable('EXIT_HYPERCALL', 1n << BigInt(KVM_HC_MAP_GPA_RANGE));
  for (const range of layOutMemory(options.memoryBytes ?? DEFAULT_MEMORY_BYTES)) {
    await addMemory(vm, range, isPrivate ? 'split' : 'anonymous');
    if (isPrivate) await setPrivate(vm, range, true);
  }
  const cpuid = await supportedCpuid(vm);
  for (let i = 0; i < (options.vcpus ?? 1); i++) await setCpuid(vm, await addVcpu(vm), cpuid);
}
