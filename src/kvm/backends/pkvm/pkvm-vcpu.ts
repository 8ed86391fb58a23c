/** The kernel's half of a vCPU: the page through which it speaks with the hypervisor, pages for tables. */
import { PAGE_4K } from '../../../abi/address.ts';
import { HOST_CALL, HOST_VCPU, HOST_VCPU_DATA, HYP_VCPU_PAGES } from '../../../abi/pkvm.ts';
import type { ValuesOf } from '../../../abi/struct.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import type { GuestAccess, GuestEvent, GuestExit } from '../../../machine/guest-code.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';
import type { Vcpu } from '../../vcpu.ts';
import { allocatePages, freeList, freePages, lendPage, load64, store64, takeBackPage } from './host-pages.ts';
import { hypCall } from './hyp-call.ts';

/** Tables that one new mapping may need: levels 1 to 3, less the root. */
const TABLES = 3;
const ACCESS_WRITE = 2n;

/** What the hypervisor tells of an exit. @internal */
export interface PkvmExit {
  readonly exit: GuestExit;
  /** The guest's hypercall, 0 for other exits, and CALL_NEEDS. */
  readonly call: number;
  readonly needs: number;
}

/** @internal */
export class PkvmVcpu {
  readonly vcpu: Vcpu;
  readonly index: number;
  /** First page for the hypervisor's record; given away when the VM is made. */
  readonly statePfn: number;
  readonly #kernel: HostKernel;
  readonly #hostPfn: number;
  /** Guest frame that the guest takes back at the next entry; null for none. */
  unshares: number | null = null;
  /** For the next entry. */
  inject: GuestEvent | null = null;
  emulated: Uint8Array | null = null;
  /** The hypervisor shows no RIP; what the kernel adds to this one says whether the instruction is done. */
  #shownRip: bigint | null = null;

  /** Throws ENOMEM. */
  constructor(kernel: HostKernel, lp: LogicalProcessor, vcpu: Vcpu, index: number) {
    this.#kernel = kernel;
    this.vcpu = vcpu;
    this.index = index;
    this.statePfn = allocatePages(kernel, HYP_VCPU_PAGES, 'pkvm-vcpu');
    try {
      this.#hostPfn = lendPage(kernel, lp, 'pkvm-host-vcpu');
    } catch (error) {
      freePages(kernel, this.statePfn, HYP_VCPU_PAGES);
      throw error;
    }
    lp.store(this.#hostPfn * PAGE_4K, HOST_VCPU.encode({ index: BigInt(index) }));
  }

  /** Hands the vCPU to the hypervisor. */
  init(lp: LogicalProcessor, handle: number): number {
    return hypCall(lp, HOST_CALL.initVcpu, handle, this.#hostPfn, this.statePfn);
  }

  /** Lists pages for tables, so that there are enough for one more mapping. Throws ENOMEM. */
  topUp(lp: LogicalProcessor): void {
    const at = this.#hostPfn * PAGE_4K;
    const { memcacheHead, memcachePages } = HOST_VCPU.offsets;
    let pages = load64(lp, at + memcachePages);
    if (pages >= TABLES) return;
    let head = load64(lp, at + memcacheHead);
    while (pages < TABLES) {
      const address = allocatePages(this.#kernel, 1, 'pkvm-stage2') * PAGE_4K;
      store64(lp, address, head);
      head = address;
      store64(lp, at + memcacheHead, head);
      store64(lp, at + memcachePages, ++pages);
    }
  }

  /** Does something with the vCPU loaded on a processor. */
  loaded<T>(lp: LogicalProcessor, handle: number, work: () => T): T {
    const result = hypCall(lp, HOST_CALL.vcpuLoad, handle, this.index);
    if (result !== 0) throw new Error(`vCPU ${this.index} cannot be loaded: ${result}`);
    try {
      return work();
    } finally {
      hypCall(lp, HOST_CALL.vcpuPut);
    }
  }

  /** One entry and the exit after it; registers go and come as far as the hypervisor lets them. */
  run(lp: LogicalProcessor, handle: number): PkvmExit {
    this.topUp(lp);
    this.#sayEntry(lp);
    this.loaded(lp, handle, () => hypCall(lp, HOST_CALL.vcpuRun));
    return this.#hearExit(lp);
  }

  /** Gives everything back; the hypervisor has dropped the vCPU, or never had it. */
  free(lp: LogicalProcessor, wasInitialised: boolean): void {
    freeList(this.#kernel, lp, load64(lp, this.#hostPfn * PAGE_4K + HOST_VCPU.offsets.memcacheHead));
    takeBackPage(this.#kernel, lp, this.#hostPfn);
    if (!wasInitialised) freePages(this.#kernel, this.statePfn, HYP_VCPU_PAGES);
  }

  #sayEntry(lp: LogicalProcessor): void {
    const at = this.#hostPfn * PAGE_4K;
    const { vcpu, inject, emulated } = this;
    const page = lp.load(at, HOST_VCPU.bytes);
    const isHidden = this.#shownRip !== null;
    HOST_VCPU.patch(page, {
      regs: [...vcpu.regs.q],
      rip: vcpu.rip,
      skipInstruction: isHidden && vcpu.rip !== this.#shownRip ? 1n : 0n,
      injectVector: inject === null ? 0n : BigInt(inject.vector + 1),
      injectErrorCode: BigInt(inject?.errorCode ?? 0),
      emulated: emulated === null ? 0n : 1n,
    });
    lp.store(at, page);
    if (emulated !== null) lp.store(at + HOST_VCPU_DATA.offset, emulated);
    this.inject = null;
    this.emulated = null;
  }

  #hearExit(lp: LogicalProcessor): PkvmExit {
    const page = HOST_VCPU.decode(lp.load(this.#hostPfn * PAGE_4K, HOST_VCPU.bytes));
    const { vcpu } = this;
    vcpu.regs.q.set(page.regs);
    vcpu.rip = page.rip;
    this.#shownRip = vcpu.vm.backend.hasProtectedState ? page.rip : null;
    const access = this.#access(lp, page);
    const exit: GuestExit = {
      reason: Number(page.exitReason),
      qualification: page.exitQualification,
      gpa: Number(page.exitGpa),
      instructionLengthBytes: Number(page.instructionLength),
      ...(access && { access }),
    };
    return { exit, call: Number(page.call), needs: Number(page.callNeeds) };
  }

  #access(lp: LogicalProcessor, page: ValuesOf<typeof HOST_VCPU>): GuestAccess | undefined {
    if (page.accessKind === 0n) return undefined;
    const lengthBytes = Number(page.accessLength);
    if (page.accessKind !== ACCESS_WRITE) return { isWrite: false, lengthBytes };
    const bytes = lp.load(this.#hostPfn * PAGE_4K + HOST_VCPU_DATA.offset, lengthBytes);
    return { isWrite: true, lengthBytes, bytes };
  }
}
