/** KVM_ENABLE_CAP on a VM. */
import { hex } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { KVM_CAP, KVM_X86_QUIRK } from '../abi/kvm/capabilities.ts';
import { KVM_ENABLE_CAP } from '../abi/kvm/structs.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import { HYPERCALL_EXITS } from './capabilities.ts';
import type { Vm } from './vm.ts';

/** Routes that user space may keep for its I/O APIC with a split interrupt controller (KVM_MAX_IRQ_ROUTES). */
const MAX_IOAPIC_PINS = 4096n;

type Enable = (vm: Vm, value: bigint) => void;

const CAPABILITIES: ReadonlyMap<number, Enable> = new Map<number, Enable>([
  [KVM_CAP.EXIT_HYPERCALL, enableHypercallExits],
  [KVM_CAP.SPLIT_IRQCHIP, splitIrqchip],
  [KVM_CAP.DISABLE_QUIRKS2, disableQuirks],
]);

/** Throws EINVAL for a capability that cannot be enabled, flags, and arguments. @internal */
export async function enableCap(vm: Vm, arg: UserArg, task: Task): Promise<number> {
  const { cap, flags, args } = KVM_ENABLE_CAP.decode(await task.copyIn(arg, KVM_ENABLE_CAP.bytes));
  if (flags !== 0) throw invalid('cap-flags', 'KVM_ENABLE_CAP takes no flags', { flags });
  return vm.lock.run(() => {
    if (vm.backend.enableCap?.(cap, args) === true) return 0;
    const enable = CAPABILITIES.get(cap);
    if (enable === undefined)
      throw invalid('cap-unknown', `capability ${cap} cannot be enabled on a VM`, { cap });
    enable(vm, args[0]!);
    return 0;
  });
}

function enableHypercallExits(vm: Vm, hypercalls: bigint): void {
  if ((hypercalls & ~HYPERCALL_EXITS) !== 0n) {
    throw invalid('cap-hypercalls', `the hypercalls that can exit are ${hex(HYPERCALL_EXITS)}`, {
      hypercalls,
    });
  }
  vm.hypercallExits = hypercalls;
}

function disableQuirks(vm: Vm, quirks: bigint): void {
  if ((quirks & ~BigInt(KVM_X86_QUIRK.SLOT_ZAP_ALL)) !== 0n) {
    throw invalid('cap-quirks', 'the only quirk that can be turned off is SLOT_ZAP_ALL', { quirks });
  }
  vm.disabledQuirks |= Number(quirks);
}

function splitIrqchip(vm: Vm, pins: bigint): void {
  if (pins > MAX_IOAPIC_PINS) {
    throw invalid('cap-ioapic-pins', `an I/O APIC has at most ${MAX_IOAPIC_PINS} pins`, { pins });
  }
  if (vm.irqchip !== 'none') {
    throw new KernelError('EEXIST', 'irqchip-exists', 'the VM has an interrupt controller in the kernel');
  }
  // Of KVM_CREATE_IRQCHIP the same is EINVAL.
  if (vm.createdVcpus > 0) {
    throw new KernelError('EEXIST', 'irqchip-after-vcpus', 'interrupt controllers come before vCPUs');
  }
  vm.irqchip = 'split';
}

function invalid(code: string, text: string, data: Record<string, unknown>): KernelError {
  return new KernelError('EINVAL', code, text, data);
}
