/** Builds a protected VM of pKVM: one file for all its memory, filled by user space and then converted in place. */
import { KVM_VM_TYPE } from '../../abi/kvm/vm-types.ts';
import type { SystemCalls } from '../../kernel/process/system-calls.ts';
import type { VmOptions } from './build-plain.ts';
import { setCpuid, supportedCpuid } from './cpuid.ts';
import { addMemory, setPrivate, writeGuest } from './guest-memory.ts';
import { addVcpu } from './guest-vcpu.ts';
import { GuestVm } from './guest-vm.ts';
import { DEFAULT_MEMORY_BYTES, layOutMemory } from './memory-layout.ts';

/** @public */
export interface PkvmOptions extends VmOptions {
  /** What user space puts into the guest's memory before it becomes private. */
  readonly payloads?: readonly { readonly gpa: number; readonly bytes: Uint8Array }[];
}

/** Throws KernelError saying what was being done; what was taken until then is given back. @public */
export function buildPkvm(calls: SystemCalls, options: PkvmOptions = {}): Promise<GuestVm> {
  return GuestVm.build(calls, KVM_VM_TYPE.ARM_PROTECTED, async (vm) => {
    const memory = layOutMemory(options.memoryBytes ?? DEFAULT_MEMORY_BYTES);
    for (const range of memory) await addMemory(vm, range, 'in-place');
    for (const { gpa, bytes } of options.payloads ?? []) await writeGuest(vm, gpa, bytes);
    for (const range of memory) await setPrivate(vm, range, true);
    const cpuid = await supportedCpuid(vm);
    for (let i = 0; i < (options.vcpus ?? 1); i++) await setCpuid(vm, await addVcpu(vm), cpuid);
  });
}
