/** Trust domains: INIT_VM, vCPUs with INIT_VCPU, FINALIZE_VM; guests accept memory and convert it by MapGPA. */
import { KVM_VM_TYPE } from '../../../src/abi/kvm/vm-types.ts';
import { asTdGuest, TdPages } from '../../../src/lab/guest/td-kernel.ts';
import type { CpuidEntry } from '../../../src/vmm/vm/cpuid.ts';
import type { GuestVm } from '../../../src/vmm/vm/guest-vm.ts';
import { initTd, tdCapabilities, tdxCommand } from '../../../src/vmm/vm/td-commands.ts';
import { TDX } from '../subjects.ts';
import { BY_HYPERCALL, type Kit } from './kit.ts';

/** The guest physical address width, in EAX[23:16] of its leaf. */
export const ADDRESS_SIZES: CpuidEntry = {
  function: 0x8000_0008,
  index: 0,
  flags: 0,
  eax: 48 * 2 ** 16,
  ebx: 0,
  ecx: 0,
  edx: 0,
  padding: [0, 0, 0],
};

/** INIT_VM with what KVM supports of `mask` in XFAM, and CPUID of the address width and `entries`. */
export async function initWithCpuid(vm: GuestVm, entries: readonly CpuidEntry[], mask = -1n): Promise<void> {
  await vm.enable('SPLIT_IRQCHIP', 24n);
  const { attributes, xfam } = await tdCapabilities(vm.calls, vm.fd);
  await initTd(vm.calls, vm.fd, { attributes, xfam: xfam & mask }, [ADDRESS_SIZES, ...entries]);
}

export const TDX_KIT: Kit = {
  subject: TDX,
  vmType: KVM_VM_TYPE.TDX,
  backing: 'split',
  startsPrivate: false,
  preserves: false,
  init: (vm) => initWithCpuid(vm, []),
  async launch({ calls, fd, vcpus }) {
    for (const vcpu of vcpus) await tdxCommand(calls, vcpu.fd, 'INIT_VCPU', 0);
    await tdxCommand(calls, fd, 'FINALIZE_VM', 0);
  },
  guest() {
    const pages = new TdPages();
    return {
      ...BY_HYPERCALL,
      wrap: (script) => asTdGuest(script, pages),
      lost: (gpa, count) => pages.converted(gpa, count, true),
    };
  },
};
