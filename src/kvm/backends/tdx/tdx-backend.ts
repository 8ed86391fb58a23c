/** Trust domains as a backend of KVM: everything the module does for a VM, by SEAMCALL (Linux host rules 2). */
import { KernelError } from '../../../abi/errno.ts';
import type { UserArg } from '../../../kernel/process/system-calls.ts';
import type { Task } from '../../../kernel/process/task.ts';
import type { Backend, MapRequest, ZapKind } from '../../backend.ts';
import type { FileTechnology } from '../../guest-memfd/file-technology.ts';
import { TDX_FILE } from '../../guest-memfd/technologies.ts';
import type { Vcpu } from '../../vcpu.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import type { Vm } from '../../vm.ts';
import { enterTd } from './enter.ts';
import { VP_FIELD, writeVcpuField } from './metadata.ts';
import { postInterrupt } from './posted-interrupts.ts';
import { PAGES_IN_RANGE, rangeOf } from './private-mirror.ts';
import { SecureEpt } from './secure-ept.ts';
import { SharedEpt } from './shared-ept.ts';
import { joinSmall, splitLarge } from './split-join.ts';
import type { TdxHost } from './tdx-host.ts';
import { TdxVcpu } from './tdx-vcpu.ts';
import { reclaimControlPages, reclaimTables, reclaimVcpu, releaseKeyId } from './teardown.ts';
import { TrustDomain } from './trust-domain.ts';
import { vcpuCommand } from './vcpu-commands.ts';
import { vmCommand } from './vm-commands.ts';
import { zapPrivate } from './zap.ts';

/** @public */
export class TdxBackend implements Backend {
  readonly name = 'tdx';
  readonly hasPrivateMemory = true;
  readonly hasProtectedState = true;
  readonly protectsEoi = true;
  readonly protectsTsc = true;
  readonly file: FileTechnology = TDX_FILE;
  readonly maxVcpus: number;
  readonly td: TrustDomain;
  readonly ept: SecureEpt;
  #sharedEpt: SharedEpt | null = null;
  readonly #vcpus = new Map<Vcpu, TdxVcpu>();
  /** 2 MiB ranges in which the guest accepts 4 KiB pages. */
  readonly #smallRanges = new Set<number>();

  constructor(vm: Vm, host: TdxHost) {
    this.td = new TrustDomain(vm, host);
    this.ept = new SecureEpt(this.td);
    this.maxVcpus = vm.kernel.cpus.length;
  }

  get sharedBit(): number | null {
    return this.td.sharedBit;
  }

  /** Made with the first page or the first vCPU that needs it. Throws ENOMEM. @internal */
  get sharedEpt(): SharedEpt {
    this.#sharedEpt ??= new SharedEpt(this.td);
    return this.#sharedEpt;
  }

  /** What the guest maps of shared memory. @internal */
  sharedLeaves(): Iterable<{ readonly gfn: number; readonly pfn: number; readonly pages: number }> {
    return this.#sharedEpt?.leaves() ?? [];
  }

  checkCreateVcpu(): void {
    if (this.td.state !== 'initialized') {
      const text = `the TD is ${this.td.state}; vCPUs are created between INIT_VM and FINALIZE_VM`;
      throw new KernelError('EIO', 'td-not-initialized', text);
    }
    if (this.td.vm.irqchip === 'split') return;
    throw new KernelError(
      'EINVAL',
      'no-split-irqchip',
      'a TD needs KVM_CAP_SPLIT_IRQCHIP: its local APICs are virtual',
    );
  }

  createVcpu(vcpu: Vcpu): void {
    this.#vcpus.set(vcpu, new TdxVcpu(vcpu, this.td));
  }

  async freeVcpu(vcpu: Vcpu): Promise<void> {
    const known = this.#vcpus.get(vcpu);
    if (known === undefined) return;
    this.td.host.processors.flush(known);
    reclaimVcpu(known);
    if (known.postedInterrupts !== 0) this.td.host.pages.free(known.postedInterrupts);
    this.#vcpus.delete(vcpu);
  }

  checkRun(vcpu: Vcpu): void {
    if (this.#of(vcpu).initialized && this.td.state === 'runnable') return;
    throw new KernelError(
      'EINVAL',
      'td-not-runnable',
      'KVM_TDX_INIT_VCPU and KVM_TDX_FINALIZE_VM come before KVM_RUN',
    );
  }

  checkPreFault(): void {
    if (this.td.state === 'runnable') return;
    throw new KernelError(
      'EOPNOTSUPP',
      'td-not-final',
      'the TD is not final: its memory comes by KVM_TDX_INIT_MEM_REGION',
    );
  }

  maxLevel(gfn: number, isPrivate: boolean): number {
    if (!isPrivate) return 1;
    if (!this.td.host.options.hugePages || this.td.state !== 'runnable') return 0;
    const range = rangeOf(gfn);
    return this.ept.mirror.table(range) === undefined && !this.#smallRanges.has(range) ? 1 : 0;
  }

  /** The guest accepts 4 KiB pages in this 2 MiB range. @internal */
  keepSmall(range: number): void {
    this.#smallRanges.add(range);
  }

  async map({ gfn, pfn, level, isPrivate, writable, vcpu }: MapRequest): Promise<'done' | 'retry'> {
    const { td, ept } = this;
    if (!isPrivate) {
      this.sharedEpt.map(gfn, pfn, level, writable);
      return 'done';
    }
    if (td.state !== 'runnable')
      throw td.vm.bug('a page of a TD that is not final was mapped without its contents');
    const range = rangeOf(gfn);
    if (this.#mustSplit(range)) {
      if (await splitLarge(td, ept, range)) return 'done';
      throw td.vm.bug('a large page could not be split', { range });
    }
    const mapped = ept.augment(td.vm.kernel.cpus[vcpu.cpu]!, gfn, pfn, level);
    if (mapped === 'retry' || !td.host.options.promote || this.#smallRanges.has(range)) return mapped;
    if (ept.mirror.table(range)?.mapped === PAGES_IN_RANGE) await joinSmall(td, ept, range);
    return 'done';
  }

  async mapMmio(_vcpu: Vcpu, gfn: number): Promise<'done' | 'retry'> {
    this.sharedEpt.mapMmio(gfn);
    return 'done';
  }

  async zap(startGfn: number, endGfn: number, what: ZapKind): Promise<void> {
    if (what !== 'private' && this.#sharedEpt !== null) {
      this.#sharedEpt.zap(startGfn, endGfn);
      await this.td.kick();
    }
    if (what !== 'shared') await zapPrivate(this.td, this.ept, startGfn, endGfn);
  }

  isMapped(gfn: number, isPrivate: boolean): boolean {
    // A large page where the guest accepts small ones is as good as none: mapping splits it.
    if (isPrivate) return this.ept.mirror.pfn(gfn) !== undefined && !this.#mustSplit(rangeOf(gfn));
    return this.#sharedEpt?.isMapped(gfn) === true;
  }

  isLarge(gfn: number, isPrivate: boolean): boolean {
    return isPrivate && this.ept.mirror.large(rangeOf(gfn)) !== undefined;
  }

  enter(vcpu: Vcpu): Promise<VcpuExit> {
    if (this.td.vm.files.state === 'sealed') this.td.vm.files.advance('live');
    return enterTd(this, this.#of(vcpu));
  }

  /** Address of the vCPU's TDVPR; 0 before KVM_TDX_INIT_VCPU. */
  guestAddress(vcpu: Vcpu): number {
    return this.#of(vcpu).tdvpr;
  }

  /** Posts an interrupt to the vCPU's virtual APIC. */
  postInterrupt(vcpu: Vcpu, vector: number): void {
    postInterrupt(this.#of(vcpu), this.td.cpu.lp, vector);
  }

  /** Has the module deliver an NMI as soon as the guest can take one; several that wait are one. */
  injectNmi(vcpu: Vcpu): void {
    writeVcpuField(this.#of(vcpu), this.td.cpu, VP_FIELD.PEND_NMI, 1n, 0xffn);
    vcpu.wake();
  }

  memoryEncryptOp(task: Task, arg: UserArg): Promise<number> {
    return vmCommand(this, task, arg);
  }

  vcpuMemoryEncryptOp(vcpu: Vcpu, task: Task, arg: UserArg): Promise<number> {
    return vcpuCommand(this, this.#of(vcpu), task, arg);
  }

  /** Takes the KeyID from the TD, whose pages can be reclaimed then. @internal */
  async releaseKeyId(): Promise<void> {
    await releaseKeyId(this.td, this.#vcpus.values());
    if (!this.td.hasKeyId) this.td.vm.files.advance('dead');
  }

  /** Private pages went with their files, which kept the VM until then. */
  async prepareDestroy(): Promise<void> {
    await this.releaseKeyId();
    await zapPrivate(this.td, this.ept, 0, 2 ** 40);
    reclaimTables(this.td, this.ept);
  }

  async destroyVm(): Promise<void> {
    for (const vcpu of [...this.#vcpus.keys()]) await this.freeVcpu(vcpu);
    this.#sharedEpt?.free();
    this.#sharedEpt = null;
    reclaimControlPages(this.td);
    this.td.state = 'uninitialized';
  }

  #mustSplit(range: number): boolean {
    return this.#smallRanges.has(range) && this.ept.mirror.large(range) !== undefined;
  }

  #of(vcpu: Vcpu): TdxVcpu {
    return this.#vcpus.get(vcpu)!;
  }
}
