/** KVM_CHECK_EXTENSION: what KVM can do at all, and what one VM can. */
import { KVM_CAP, KVM_X86_QUIRK } from '../abi/kvm/capabilities.ts';
import { KVM_HC_MAP_GPA_RANGE } from '../abi/kvm/exits.ts';
import { GUEST_MEMFD_FLAG, KVM_MEMORY_ATTRIBUTE_PRIVATE } from '../abi/kvm/structs.ts';
import { onlineCpus } from '../kernel/cpu.ts';
import { supportedFlags } from './guest-memfd/create.ts';
import type { Kvm } from './kvm.ts';
import { MAX_SLOTS, MAX_VCPU_IDS } from './kvm-options.ts';
import { supportedAttributes } from './set-attributes.ts';
import type { Vm } from './vm.ts';

/** Hypercalls that can be sent to user space: the bits of KVM_CAP_EXIT_HYPERCALL. @public */
export const HYPERCALL_EXITS = 1n << BigInt(KVM_HC_MAP_GPA_RANGE);

/** Bits in which KVM_CAP_VM_TYPES reports types. */
const TYPE_BITS = 32;

/** A constant, or an answer that depends on the host and, at VM scope, on the VM. */
type Answer = number | ((kvm: Kvm, vm: Vm | null) => number);

const ANSWERS: ReadonlyMap<number, Answer> = new Map<number, Answer>([
  [KVM_CAP.IRQCHIP, 1],
  [KVM_CAP.HLT, 1],
  [KVM_CAP.USER_MEMORY, 1],
  [KVM_CAP.EXT_CPUID, 1],
  [KVM_CAP.NR_VCPUS, ({ kernel, options }) => Math.min(onlineCpus(kernel.cpus).length, options.maxVcpus)],
  [KVM_CAP.NR_MEMSLOTS, MAX_SLOTS],
  [KVM_CAP.MP_STATE, 1],
  [KVM_CAP.SYNC_MMU, 1],
  [KVM_CAP.DESTROY_MEMORY_REGION_WORKS, 1],
  [KVM_CAP.JOIN_MEMORY_REGIONS_WORKS, 1],
  [KVM_CAP.INTERNAL_ERROR_DATA, 1],
  [KVM_CAP.TSC_CONTROL, 1],
  [KVM_CAP.GET_TSC_KHZ, 1],
  [KVM_CAP.MAX_VCPUS, ({ options }, vm) => vm?.maxVcpus ?? options.maxVcpus],
  [KVM_CAP.READONLY_MEM, (_, vm) => (vm?.backend.hasProtectedState === true ? 0 : 1)],
  [KVM_CAP.ENABLE_CAP_VM, 1],
  [KVM_CAP.CHECK_EXTENSION_VM, 1],
  [KVM_CAP.SPLIT_IRQCHIP, 1],
  [KVM_CAP.MAX_VCPU_ID, MAX_VCPU_IDS],
  [KVM_CAP.IMMEDIATE_EXIT, 1],
  [KVM_CAP.EXIT_HYPERCALL, Number(HYPERCALL_EXITS)],
  [KVM_CAP.SYS_ATTRIBUTES, 1],
  [KVM_CAP.X86_MSR_FILTER, 1],
  [KVM_CAP.DISABLE_QUIRKS2, KVM_X86_QUIRK.SLOT_ZAP_ALL],
  [KVM_CAP.VM_TSC_CONTROL, 1],
  [KVM_CAP.USER_MEMORY2, 1],
  [KVM_CAP.MEMORY_FAULT_INFO, 1],
  [
    KVM_CAP.MEMORY_ATTRIBUTES,
    ({ options }, vm) => {
      if (vm !== null) return Number(supportedAttributes(vm));
      return options.inPlaceConversion ? 0 : Number(KVM_MEMORY_ATTRIBUTE_PRIVATE);
    },
  ],
  [KVM_CAP.GUEST_MEMFD, 1],
  [
    KVM_CAP.GUEST_MEMFD_FLAGS,
    (_, vm) =>
      Number(
        vm === null
          ? GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED
          : supportedFlags(vm.technology, vm.options),
      ),
  ],
  [
    KVM_CAP.GUEST_MEMFD_MEMORY_ATTRIBUTES,
    ({ options }, vm) => {
      const converts = options.inPlaceConversion && (vm === null || vm.technology.supportsInPlace);
      return converts ? Number(KVM_MEMORY_ATTRIBUTE_PRIVATE) : 0;
    },
  ],
  [KVM_CAP.VM_TYPES, vmTypes],
  [KVM_CAP.PRE_FAULT_MEMORY, 1],
]);

/** The answer to KVM_CHECK_EXTENSION on /dev/kvm (`vm` null) or a VM; 0 for what KVM does not know. @public */
export function checkExtension(kvm: Kvm, vm: Vm | null, capability: number): number {
  const own = vm?.backend.checkExtension?.(capability);
  if (own !== undefined) return own;
  const answer = ANSWERS.get(capability) ?? 0;
  return typeof answer === 'number' ? answer : answer(kvm, vm);
}

function vmTypes({ technologies }: Kvm): number {
  let bits = 0;
  for (const type of technologies.keys()) if (type < TYPE_BITS) bits += 2 ** type;
  return bits;
}
