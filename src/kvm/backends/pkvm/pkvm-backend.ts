/** VMs whose memory the hypervisor keeps apart from the host, and VMs of the same host that are not protected. */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import type { Backend, MapRequest, ZapKind } from '../../backend.ts';
import type { FileTechnology } from '../../guest-memfd/file-technology.ts';
import type { Vcpu } from '../../vcpu.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import type { Vm } from '../../vm.ts';
import { decodeExit } from '../software/decode-exit.ts';
import { PkvmVcpu } from './pkvm-vcpu.ts';
import { PkvmVm } from './pkvm-vm.ts';
import { confirmUnshare, guestCall } from './share-calls.ts';

/** @internal */
export class PkvmBackend implements Backend {
  readonly name = 'pkvm';
  readonly hasPrivateMemory: boolean;
  readonly hasProtectedState: boolean;
  readonly sharedBit = null;
  readonly maxVcpus = null;
  readonly file: FileTechnology;
  readonly pkvm: PkvmVm;
  readonly #vcpus = new Map<Vcpu, PkvmVcpu>();

  /** Throws ENOMEM. */
  constructor(vm: Vm, file: FileTechnology, isProtected: boolean) {
    this.file = file;
    this.hasPrivateMemory = isProtected;
    this.hasProtectedState = isProtected;
    this.pkvm = new PkvmVm(vm.kernel, isProtected);
  }

  /** The hypervisor learns the number of vCPUs when the first one runs. Throws EBUSY after that. */
  checkCreateVcpu(vcpuId: number): void {
    if (!this.pkvm.isCreated) return;
    throw new KernelError('EBUSY', 'pkvm-running', 'the hypervisor has the VM: it gets no more vCPUs', {
      vcpuId,
    });
  }

  createVcpu(vcpu: Vcpu): void {
    const { pkvm } = this;
    const made = new PkvmVcpu(pkvm.kernel, pkvm.lp, vcpu, pkvm.vcpus.length);
    pkvm.vcpus.push(made);
    this.#vcpus.set(vcpu, made);
  }

  /** The hypervisor keeps a vCPU as long as its VM. */
  async freeVcpu(): Promise<void> {}

  checkRun(): void {
    this.pkvm.create();
  }

  checkPreFault(): void {
    this.pkvm.create();
  }

  maxLevel(): number {
    return 1;
  }

  async map(request: MapRequest): Promise<'done'> {
    const { vcpu } = request;
    this.pkvm.map(request, this.#vcpus.get(vcpu)!, vcpu.cpu < 0 ? this.pkvm.lp : vcpu.lp);
    return 'done';
  }

  async zap(startGfn: number, endGfn: number, what: ZapKind): Promise<void> {
    this.pkvm.zap(startGfn, endGfn, what);
  }

  isMapped(gfn: number, isPrivate: boolean): boolean {
    return this.pkvm.mappings.find(gfn)?.isPrivate === isPrivate;
  }

  async enter(vcpu: Vcpu): Promise<VcpuExit> {
    const made = this.#vcpus.get(vcpu)!;
    // The hypervisor flushes what it takes out of a guest's tables.
    vcpu.requests.delete('tlb-flush');
    confirmUnshare(made);
    const heard = made.run(vcpu.lp, this.pkvm.handle);
    if (this.hasProtectedState && heard.call !== 0) return guestCall(this.pkvm, made, heard);
    const exit = decodeExit(vcpu, made, heard.exit);
    if (exit.kind !== 'page-fault' || !this.hasProtectedState) return exit;
    // A protected guest's memory is its own; it shows accesses only where it knows of devices.
    return { ...exit, isPrivate: exit.emulate === null };
  }

  guestAddress(vcpu: Vcpu): number {
    return this.#vcpus.get(vcpu)!.statePfn * PAGE_4K;
  }

  async prepareDestroy(): Promise<void> {
    this.pkvm.startTeardown();
  }

  async destroyVm(): Promise<void> {
    this.pkvm.destroy();
  }
}
