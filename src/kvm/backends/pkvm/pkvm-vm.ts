/** The kernel's half of a VM: its handle, its vCPUs, and the mappings it asked the hypervisor to make. */
import { PAGE_4K } from '../../../abi/address.ts';
import { ERRNO, KernelError } from '../../../abi/errno.ts';
import {
  DEFAULT_IPA_BITS,
  errnoOf,
  GUEST_PROT,
  HOST_CALL,
  HOST_VM,
  HYP_VM_PAGES,
  stage2RootPages,
} from '../../../abi/pkvm.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';
import type { MapRequest, ZapKind } from '../../backend.ts';
import { SecondStage, type StageMapping } from '../software/second-stage.ts';
import { allocatePages, freeList, freePages, lendPage, load64, takeBackPage } from './host-pages.ts';
import { hypCall, refusal } from './hyp-call.ts';
import type { PkvmVcpu } from './pkvm-vcpu.ts';

const BLOCK_PAGES = 512;

/** @internal */
export class PkvmVm {
  readonly kernel: HostKernel;
  readonly isProtected: boolean;
  readonly vcpus: PkvmVcpu[] = [];
  readonly mappings = new SecondStage();
  readonly #handle: number;
  /** The hypervisor has it: from then on there are no more vCPUs. */
  #hostPfn: number | null = null;

  /** Throws ENOMEM when the hypervisor has no room for another VM. */
  constructor(kernel: HostKernel, isProtected: boolean) {
    this.kernel = kernel;
    this.isProtected = isProtected;
    this.#handle = hypCall(this.lp, HOST_CALL.reserveVm);
    if (this.#handle < 0) throw refusal(this.#handle, 'reserve a VM');
  }

  get isCreated(): boolean {
    return this.#hostPfn !== null;
  }

  get handle(): number {
    return this.#handle;
  }

  /** A processor for calls that any can make. */
  get lp(): LogicalProcessor {
    return this.kernel.cpus[0]!.lp;
  }

  /** Hands VM and vCPUs to the hypervisor, before the first of them runs or has memory. Throws ENOMEM. */
  create(): void {
    if (this.isCreated) return;
    const { kernel, lp } = this;
    const rootPages = stage2RootPages(DEFAULT_IPA_BITS);
    const rootPfn = allocatePages(kernel, rootPages, 'pkvm-stage2');
    let statePfn: number | undefined;
    let hostPfn: number;
    try {
      statePfn = allocatePages(kernel, HYP_VM_PAGES, 'pkvm-vm');
      hostPfn = lendPage(kernel, lp, 'pkvm-host-vm');
    } catch (error) {
      freePages(kernel, rootPfn, rootPages);
      if (statePfn !== undefined) freePages(kernel, statePfn, HYP_VM_PAGES);
      throw error;
    }
    const description = {
      handle: BigInt(this.#handle),
      isProtected: this.isProtected ? 1n : 0n,
      ipaBits: BigInt(DEFAULT_IPA_BITS),
      vcpus: BigInt(this.vcpus.length),
    };
    lp.store(hostPfn * PAGE_4K, HOST_VM.encode(description));
    expectDone(hypCall(lp, HOST_CALL.initVm, hostPfn, statePfn, rootPfn), 'make a VM');
    for (const vcpu of this.vcpus) expectDone(vcpu.init(lp, this.#handle), 'make a vCPU');
    this.#hostPfn = hostPfn;
  }

  /**
   * Gives pages to the guest, or lends them. Throws EFAULT for one that was taken from the guest, and for shared memory
   * of a protected guest, which only the guest itself can share; ENOMEM.
   */
  map({ gfn, pfn, level, writable, isPrivate }: MapRequest, vcpu: PkvmVcpu, lp: LogicalProcessor): void {
    if (this.isProtected && !isPrivate) throw notShared(gfn);
    const pages = BLOCK_PAGES ** level;
    const prot = writable ? GUEST_PROT.all : GUEST_PROT.read | GUEST_PROT.execute;
    const old = this.mappings.find(gfn);
    if (old !== undefined && this.#relax(old, vcpu, lp, gfn, pfn, prot, writable)) return;
    vcpu.topUp(lp);
    vcpu.loaded(lp, this.#handle, () => {
      const result = this.isProtected
        ? hypCall(lp, HOST_CALL.hostDonateGuest, pfn, gfn, pages)
        : hypCall(lp, HOST_CALL.hostShareGuest, pfn, gfn, pages, prot);
      if (result === 0) return;
      if (result === -ERRNO.EPERM && hypCall(lp, HOST_CALL.vcpuInPoisonFault) === 1) throw poisoned(gfn);
      throw refusal(result, `map guest frame ${gfn}`, { gfn, pfn, pages });
    });
    this.mappings.set({ gfn, pfn, level, writable, isPrivate });
  }

  /** A mapping that is there already: true when it is the wanted one now. */
  #relax(
    old: StageMapping,
    vcpu: PkvmVcpu,
    lp: LogicalProcessor,
    gfn: number,
    pfn: number,
    prot: number,
    writable: boolean,
  ): boolean {
    if (old.pfn + (gfn - old.gfn) !== pfn) {
      this.zap(old.gfn, old.gfn + BLOCK_PAGES ** old.level, 'both');
      return false;
    }
    if (writable && !old.writable) {
      vcpu.loaded(lp, this.#handle, () => hypCall(lp, HOST_CALL.hostRelaxPermsGuest, gfn, prot));
      this.mappings.set({ ...old, writable });
    }
    return true;
  }

  /**
   * Takes memory back. What a protected guest owns comes wiped, and the guest finds it poisoned; what it shares with the
   * host stays with it unless both kinds are to go.
   */
  zap(startGfn: number, endGfn: number, what: ZapKind): void {
    if (this.isProtected && what === 'shared') return;
    this.#splitAt(startGfn);
    this.#splitAt(endGfn);
    this.mappings.remove(startGfn, endGfn, (mapping) => this.#takeBack(mapping, what));
  }

  #takeBack({ gfn, pfn, level }: StageMapping, what: ZapKind): boolean {
    const { lp } = this;
    const pages = BLOCK_PAGES ** level;
    if (!this.isProtected) {
      expectDone(hypCall(lp, HOST_CALL.hostUnshareGuest, this.#handle, gfn, pages), 'unshare');
      return true;
    }
    const result = hypCall(lp, HOST_CALL.forceReclaimGuestPage, pfn, pages);
    if (result === 0) return true;
    // The guest shares it with the host.
    if (result !== -ERRNO.EAGAIN) throw new Error(`page ${pfn} cannot be reclaimed: ${errnoOf(result)}`);
    if (what !== 'both') return false;
    expectDone(hypCall(lp, HOST_CALL.revokeSharedGuestPage, this.#handle, gfn), 'revoke a shared page');
    return true;
  }

  /** Makes pages of the block that holds `gfn`, where it has frames on both sides. */
  #splitAt(gfn: number): void {
    const mapping = this.mappings.find(gfn);
    if (mapping === undefined || mapping.level === 0 || mapping.gfn === gfn) return;
    this.split(mapping);
  }

  /** Makes pages of a block. Throws ENOMEM. */
  split(mapping: StageMapping): void {
    const [vcpu] = this.vcpus;
    const { lp } = this;
    vcpu!.topUp(lp);
    const result = vcpu!.loaded(lp, this.#handle, () => hypCall(lp, HOST_CALL.hostSplitGuest, mapping.gfn));
    expectDone(result, 'split a block');
    for (let i = 0; i < BLOCK_PAGES; i++) {
      this.mappings.set({ ...mapping, gfn: mapping.gfn + i, pfn: mapping.pfn + i, level: 0 });
    }
  }

  /** From now on no vCPU runs, and pages can be reclaimed: all of them are. */
  startTeardown(): void {
    if (!this.isCreated) return;
    const { lp } = this;
    expectDone(hypCall(lp, HOST_CALL.startTeardownVm, this.#handle), 'start the teardown');
    const call = this.isProtected ? HOST_CALL.reclaimDyingGuestPage : HOST_CALL.hostUnshareGuest;
    this.mappings.remove(0, Number.MAX_SAFE_INTEGER, ({ gfn, level }) => {
      expectDone(hypCall(lp, call, this.#handle, gfn, BLOCK_PAGES ** level), 'give a page back');
      return true;
    });
  }

  /** Ends the VM and frees what it was made of. */
  destroy(): void {
    const { kernel, lp } = this;
    const hostPfn = this.#hostPfn;
    if (hostPfn === null) hypCall(lp, HOST_CALL.unreserveVm, this.#handle);
    else {
      expectDone(hypCall(lp, HOST_CALL.finalizeTeardownVm, this.#handle), 'end the teardown');
      freeList(kernel, lp, load64(lp, hostPfn * PAGE_4K + HOST_VM.offsets.teardownHead));
      takeBackPage(kernel, lp, hostPfn);
    }
    for (const vcpu of this.vcpus) vcpu.free(lp, hostPfn !== null);
  }
}

function expectDone(result: number, what: string): void {
  if (result !== 0) throw new Error(`the hypervisor refused to ${what}: ${errnoOf(result)}`);
}

function notShared(gfn: number): KernelError {
  return new KernelError(
    'EFAULT',
    'pkvm-not-the-guests',
    `guest frame ${gfn} is shared memory of the host, which a protected guest cannot be lent`,
    { gfn },
  );
}

function poisoned(gfn: number): KernelError {
  return new KernelError(
    'EFAULT',
    'pkvm-page-taken',
    `guest frame ${gfn} was taken from the guest, which cannot have another page there`,
    { gfn },
  );
}
