/** SEV-SNP guests: INIT2, LAUNCH_START, LAUNCH_FINISH; guests validate memory and convert it by page state changes. */
import { PAGE_4K } from '../../../src/abi/address.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import {
  KVM_SEV,
  KVM_SEV_CMD,
  KVM_SEV_INIT,
  KVM_SEV_SNP_LAUNCH_FINISH,
  KVM_SEV_SNP_LAUNCH_START,
  type KvmSevCommandName,
} from '../../../src/abi/kvm/sev.ts';
import { KVM_VM_TYPE } from '../../../src/abi/kvm/vm-types.ts';
import type { GuestCpu } from '../../../src/lab/guest/flow.ts';
import { asSnpGuest } from '../../../src/lab/guest/snp-kernel.ts';
import { SNP_DEFAULT_POLICY } from '../../../src/vmm/vm/build-snp.ts';
import type { GuestVm } from '../../../src/vmm/vm/guest-vm.ts';
import { withBuffer } from '../../../src/vmm/vm/user-memory.ts';
import { SNP } from '../subjects.ts';
import { BY_HYPERCALL, converting, type Kit } from './kit.ts';
import { LIBRARY_SLOT, SHARED_WINDOW } from './test-vm.ts';

/** Each vCPU has a page for its GHCB, the last ones of the library's slot. */
export function ghcbOf(cpu: GuestCpu): number {
  return LIBRARY_SLOT.end - (cpu.index + 1) * PAGE_4K;
}

function isShared(gpa: number): boolean {
  return SHARED_WINDOW.start <= gpa && gpa < SHARED_WINDOW.end;
}

/** KVM_MEMORY_ENCRYPT_OP with a structure in the process' memory. */
export async function sevCommand(
  { calls, fd }: Pick<GuestVm, 'calls' | 'fd'>,
  name: KvmSevCommandName,
  bytes: Uint8Array,
): Promise<void> {
  const sev = await calls.open('/dev/sev');
  try {
    await withBuffer(calls, bytes, (data) =>
      calls.ioctl(
        fd,
        KVM.MEMORY_ENCRYPT_OP,
        KVM_SEV_CMD.encode({ id: KVM_SEV[name], data: BigInt(data), sev_fd: sev }),
      ),
    );
  } finally {
    await calls.close(sev);
  }
}

export const SNP_KIT: Kit = {
  subject: SNP,
  vmType: KVM_VM_TYPE.SNP,
  backing: 'split',
  startsPrivate: true,
  preserves: false,
  init: (vm) => sevCommand(vm, 'INIT2', KVM_SEV_INIT.encode()),
  async launch(vm) {
    const start = KVM_SEV_SNP_LAUNCH_START.encode({ policy: SNP_DEFAULT_POLICY });
    await sevCommand(vm, 'SNP_LAUNCH_START', start);
    await sevCommand(vm, 'SNP_LAUNCH_FINISH', KVM_SEV_SNP_LAUNCH_FINISH.encode());
  },
  guest({ host }) {
    const { cBit } = host.machine.snp!;
    return {
      ...BY_HYPERCALL,
      wrap: (script) => asSnpGuest(script, { cBit, ghcb: ghcbOf, isShared }),
      convert: converting(BY_HYPERCALL.convert),
    };
  },
};
