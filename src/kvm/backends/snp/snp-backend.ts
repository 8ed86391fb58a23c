/** SEV-SNP VMs: one set of nested page tables, and a table of owners that the host keeps with the firmware's help. */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { KVM_INTERNAL_ERROR } from '../../../abi/kvm/exits.ts';
import { EXIT } from '../../../abi/vm-exit.ts';
import type { UserArg } from '../../../kernel/process/system-calls.ts';
import type { Task } from '../../../kernel/process/task.ts';
import type { GuestExit } from '../../../machine/guest-code.ts';
import { PAGES_PER_2M, RMP_2M } from '../../../machine/snp/rmp.ts';
import { PAGE_FAULT } from '../../../machine/snp/rmp-checks.ts';
import { RMP_STATUS } from '../../../machine/snp/rmp-instructions.ts';
import { vmrun } from '../../../machine/snp/vmrun.ts';
import type { Backend, MapRequest, ZapKind } from '../../backend.ts';
import { GuestMemfdFile } from '../../guest-memfd/file.ts';
import type { FileTechnology } from '../../guest-memfd/file-technology.ts';
import type { Vcpu } from '../../vcpu.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import type { Vm } from '../../vm.ts';
import { destroyGuest, freeVcpu } from './destroy.ts';
import { sevInfo } from './ghcb-msr.ts';
import { fileTechnology } from './guest-pages.ts';
import { splitPage } from './rmp.ts';
import { memoryEncryptOp } from './sev-commands.ts';
import { HANDLED, SnpGuest, SnpVcpu } from './snp-guest.ts';
import type { SnpHost } from './snp-host.ts';
import { handleVmgexit } from './vmgexit.ts';
import { setResetState } from './vmsa-state.ts';

/** VMEXIT_INVALID: VMRUN found the state of host or guest wrong. */
const VMEXIT_INVALID = 0xffff_ffff_ffff_ffffn;
const VMEXIT_NPF = 0x400n;

/** @public */
export class SnpBackend implements Backend {
  readonly name = 'snp';
  readonly hasPrivateMemory = true;
  readonly hasProtectedState = true;
  readonly sharedBit = null;
  readonly file: FileTechnology;
  readonly maxVcpus = null;
  readonly guest: SnpGuest;

  constructor(vm: Vm, host: SnpHost) {
    this.guest = new SnpGuest(vm, host);
    this.file = fileTechnology(this.guest);
  }

  checkCreateVcpu(): void {}

  /** Before LAUNCH_FINISH user space sets the registers that are measured. */
  protectsRegisters(vcpu: Vcpu): boolean {
    return this.guest.vcpus.get(vcpu)?.isProtected === true;
  }

  createVcpu(vcpu: Vcpu): void {
    const { guest } = this;
    // A vCPU made before KVM_SEV_INIT2 has no save area, and the VM can never become a guest.
    if (!guest.isInitialised) return;
    const pfn = guest.vm.kernel.pageRefs.alloc({ purpose: 'snp-vmsa' });
    if (pfn === null) throw new KernelError('ENOMEM', 'snp-no-memory', 'there is no memory for a save area');
    guest.vcpus.set(vcpu, new SnpVcpu(guest, vcpu, pfn, sevInfo(guest)));
    setResetState(vcpu);
  }

  async freeVcpu(vcpu: Vcpu): Promise<void> {
    freeVcpu(this.guest, vcpu);
  }

  checkRun(vcpu: Vcpu): void {
    if (this.guest.vcpus.has(vcpu)) return;
    throw new KernelError('EINVAL', 'snp-not-initialised', 'KVM_SEV_INIT2 has not been done');
  }

  checkPreFault(): void {
    if (this.guest.isLaunched) return;
    throw new KernelError('EOPNOTSUPP', 'snp-not-launched', 'the launch has not been finished');
  }

  maxLevel(gfn: number, isPrivate: boolean): number {
    const slot = this.guest.vm.slots.find(gfn);
    if (!isPrivate || !(slot?.backing instanceof GuestMemfdFile)) return 0;
    const pfn = slot.backing.inode.pageAt(gfn - slot.baseGfn + slot.backingIndex);
    const { rmp } = this.guest.host.snp;
    return pfn !== undefined && rmp.covering(pfn).pageSize === RMP_2M ? 1 : 0;
  }

  async map({ gfn, pfn, level, isPrivate, writable }: MapRequest): Promise<'done'> {
    this.guest.nested.map(gfn, level === 1, { pfn, writable, isPrivate });
    return 'done';
  }

  /** The entry gets a reserved bit: the guest's #VC handler tells the host what it wanted there. */
  async mapMmio(_vcpu: Vcpu, gfn: number): Promise<'done'> {
    this.guest.nested.mapMmio(gfn, this.guest.vm.slots.generation);
    return 'done';
  }

  /** The model's processors cache no translations; vCPUs are outside the guest whenever other code runs. */
  async zap(startGfn: number, endGfn: number, what: ZapKind): Promise<void> {
    this.guest.nested.zap(startGfn, endGfn, what);
  }

  isMapped(gfn: number, isPrivate: boolean): boolean {
    return this.guest.nested.isMapped(gfn, isPrivate);
  }

  guestAddress(vcpu: Vcpu): number {
    return this.guest.vcpus.get(vcpu)?.vmsaAddress ?? 0;
  }

  async enter(vcpu: Vcpu): Promise<VcpuExit> {
    const state = this.guest.vcpus.get(vcpu)!;
    if (state.isExitPending) return handleVmgexit(state);
    const { vm, isLaunched } = this.guest;
    if (isLaunched && vm.files.state === 'sealed') vm.files.advance('live');
    const exit = vmrun(vcpu.lp, state);
    switch (exit.reason) {
      case EXIT.EPT_VIOLATION:
        return this.#nestedFault(vcpu, exit);
      case EXIT.VMCALL:
        return handleVmgexit(state);
      case EXIT.EXTERNAL_INTERRUPT:
        return { kind: 'interrupt' };
      case EXIT.HLT:
        return { kind: 'halt' };
      case EXIT.TRIPLE_FAULT:
        return { kind: 'shutdown' };
      case EXIT.ENTRY_FAILED_GUEST_STATE:
        return { kind: 'fail-entry', hardwareReason: VMEXIT_INVALID };
      default:
        throw new Error(`an SNP guest exits with reason ${exit.reason}`);
    }
  }

  memoryEncryptOp(task: Task, arg: UserArg): Promise<number> {
    return memoryEncryptOp(this.guest, task, arg);
  }

  async destroyVm(): Promise<void> {
    destroyGuest(this.guest);
  }

  #nestedFault(vcpu: Vcpu, { gpa, qualification, isPrivate = false, access }: GuestExit): VcpuExit {
    const isRmpFault = (qualification & PAGE_FAULT.rmp) !== 0n;
    const gfn = Math.floor(gpa / PAGE_4K);
    if (isRmpFault && this.guest.nested.isMapped(gfn, isPrivate)) {
      return this.#rmpFault(vcpu, gfn, qualification);
    }
    const isWrite = access?.isWrite === true || (qualification & PAGE_FAULT.write) !== 0n;
    return { kind: 'page-fault', gpa, isPrivate, access: isWrite ? 'write' : 'read', emulate: null };
  }

  /**
   * The page is mapped as the guest uses it, and the RMP says no. Where the guest named a page smaller than its RMP entry,
   * the entry is taken apart; anything else would never end.
   */
  #rmpFault(vcpu: Vcpu, gfn: number, qualification: bigint): VcpuExit {
    const { nested, host } = this.guest;
    const mapping = this.guest.vcpus.get(vcpu)!.nested(gfn);
    if ((qualification & PAGE_FAULT.sizeMismatch) !== 0n && mapping !== null && mapping !== 'mmio') {
      const start = gfn - (gfn % PAGES_PER_2M);
      const status = splitPage(host, vcpu.lp, mapping.pfn);
      nested.zap(start, start + PAGES_PER_2M, 'both');
      if (status === RMP_STATUS.SUCCESS) return HANDLED;
    }
    return {
      kind: 'internal-error',
      suberror: KVM_INTERNAL_ERROR.UNEXPECTED_EXIT_REASON,
      data: [VMEXIT_NPF, qualification, BigInt(gfn * PAGE_4K)],
    };
  }
}
