/** VMs whose second stage the host kernel writes itself and whose memory nothing but the kernel keeps apart. */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { RDX } from '../../../abi/registers.ts';
import type { Backend, BackendName, MapRequest, ZapKind } from '../../backend.ts';
import type { FileTechnology } from '../../guest-memfd/file-technology.ts';
import type { Vcpu } from '../../vcpu.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import type { Vm } from '../../vm.ts';
import { decodeExit } from './decode-exit.ts';
import { SoftwareContext } from './guest-context.ts';
import { SecondStage } from './second-stage.ts';

/** RDX after reset: a processor of family 6, whatever CPUID user space gives it later. */
const RESET_RDX = 0x600n;
/** Address of the first instruction after reset. */
const RESET_VECTOR = 0xffff_fff0;

/** @internal */
export class SoftwareBackend implements Backend {
  readonly name: BackendName;
  readonly hasPrivateMemory: boolean;
  readonly hasProtectedState = false;
  readonly sharedBit = null;
  readonly maxVcpus = null;
  readonly file: FileTechnology;
  readonly stage = new SecondStage();
  readonly contexts = new Map<Vcpu, SoftwareContext>();
  readonly #vm: Vm;

  constructor(vm: Vm, file: FileTechnology) {
    this.#vm = vm;
    this.name = file.name;
    this.hasPrivateMemory = file.hasPrivateMemory;
    this.file = file;
  }

  checkCreateVcpu(): void {}

  /** Throws ENOMEM. */
  createVcpu(vcpu: Vcpu): void {
    const pfn = this.#vm.kernel.pageRefs.alloc({ purpose: 'vmcs' });
    if (pfn === null) throw new KernelError('ENOMEM', 'no-memory', 'no memory is left for a VMCS');
    vcpu.regs.q[RDX] = RESET_RDX;
    this.contexts.set(vcpu, new SoftwareContext(vcpu, this.stage, pfn * PAGE_4K));
  }

  async freeVcpu(vcpu: Vcpu): Promise<void> {
    this.#vm.kernel.pageRefs.put(this.guestAddress(vcpu) / PAGE_4K);
    this.contexts.delete(vcpu);
  }

  checkRun(): void {}

  checkPreFault(): void {}

  maxLevel(): number {
    return 1;
  }

  async map({ gfn, pfn, level, isPrivate, writable }: MapRequest): Promise<'done'> {
    const old = this.stage.find(gfn);
    this.stage.set({ gfn, pfn, level, isPrivate, writable });
    if (old !== undefined && old.pfn !== pfn) await this.#vm.flushTlbs();
    return 'done';
  }

  async zap(startGfn: number, endGfn: number, what: ZapKind): Promise<void> {
    const isMeant = ({ isPrivate }: { readonly isPrivate: boolean }): boolean =>
      what === 'both' || isPrivate === (what === 'private');
    if (this.stage.remove(startGfn, endGfn, isMeant)) await this.#vm.flushTlbs();
  }

  isMapped(gfn: number, isPrivate: boolean): boolean {
    return this.stage.find(gfn)?.isPrivate === isPrivate;
  }

  async enter(vcpu: Vcpu): Promise<VcpuExit> {
    const context = this.contexts.get(vcpu)!;
    // Scripts lie outside of guest memory, so only a VM without any fails where the first instruction is fetched.
    if (!context.hasBegun && this.#vm.slots.size === 0) return fetchFault(RESET_VECTOR);
    context.hasBegun = true;
    if (vcpu.requests.delete('tlb-flush')) context.flushTlb();
    return decodeExit(vcpu, context, vcpu.lp.runGuest(context));
  }

  guestAddress(vcpu: Vcpu): number {
    return this.contexts.get(vcpu)!.address;
  }

  async destroyVm(): Promise<void> {}
}

function fetchFault(gpa: number): VcpuExit {
  return { kind: 'page-fault', gpa, isPrivate: null, access: 'execute', emulate: null };
}
