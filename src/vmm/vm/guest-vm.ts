/** A VM as the program that built it has it: descriptors, memory, vCPUs, and how all of it is given back. */
import { KVM_CAP, type KvmCapName } from '../../abi/kvm/capabilities.ts';
import { KVM } from '../../abi/kvm/ioctl.ts';
import { KVM_ENABLE_CAP } from '../../abi/kvm/structs.ts';
import type { SystemCalls } from '../../kernel/process/system-calls.ts';
import { doing } from './doing.ts';
import type { GuestSlot } from './guest-memory.ts';
import type { GuestVcpu } from './guest-vcpu.ts';
import { openKvm } from './open-kvm.ts';
import { Owned } from './owned.ts';

/** @public */
export class GuestVm {
  readonly calls: SystemCalls;
  /** Descriptors of /dev/kvm and of the VM. */
  readonly kvm: number;
  readonly fd: number;
  readonly slots: GuestSlot[] = [];
  readonly vcpus: GuestVcpu[] = [];
  readonly owned: Owned;

  private constructor(calls: SystemCalls, kvm: number, fd: number, owned: Owned) {
    this.calls = calls;
    this.kvm = kvm;
    this.fd = fd;
    this.owned = owned;
  }

  /**
   * Creates a VM of a type (KVM_VM_TYPE) and has `build` complete it. What a failure leaves is given back before it is
   * thrown: a KernelError that says what was being done.
   */
  static async build(
    calls: SystemCalls,
    type: number,
    build: (vm: GuestVm) => Promise<void>,
  ): Promise<GuestVm> {
    const owned = new Owned();
    try {
      const kvm = await openKvm(calls);
      owned.add(() => calls.close(kvm));
      const fd = await doing('creating a VM', () => calls.ioctl(kvm, KVM.CREATE_VM, type));
      owned.add(() => calls.close(fd));
      const vm = new GuestVm(calls, kvm, fd, owned);
      await build(vm);
      return vm;
    } catch (error) {
      await owned.release();
      throw error;
    }
  }

  /** KVM_ENABLE_CAP with one argument. */
  async enable(capability: KvmCapName, argument: bigint): Promise<void> {
    const bytes = KVM_ENABLE_CAP.encode({ cap: KVM_CAP[capability], args: [argument] });
    await doing(`enabling KVM_CAP_${capability}`, () => this.calls.ioctl(this.fd, KVM.ENABLE_CAP, bytes));
  }

  /** Gives everything back: vCPUs, memory and files, the VM, the last first. */
  close(): Promise<void> {
    return this.owned.release();
  }
}
