/**
 * Ownership of memory between host and hypervisor. Every transition checks both sides first and returns 0 or a negative
 * errno; nothing has changed when it is refused. Rules: docs/rules/pkvm.md.
 */
import { type AddressRange, PAGE_4K, pfnOf } from '../abi/address.ts';
import { ERRNO } from '../abi/errno.ts';
import { CpuException, VECTOR_PF } from '../machine/exceptions.ts';
import type { Machine } from '../machine/machine.ts';
import { HostStage2 } from './host-stage2.ts';
import { PAGE_STATE, PageStates } from './page-state.ts';

const { OWNED, SHARED_OWNED, SHARED_BORROWED, NOPAGE } = PAGE_STATE;

/** @public */
export class Ownership {
  readonly machine: Machine;
  readonly states = new PageStates();
  readonly hostStage2: HostStage2;
  /** Memory at boot; what is plugged in later is no memory to the hypervisor, and can be given to nobody. */
  readonly #memory: readonly AddressRange[];

  constructor(machine: Machine) {
    this.machine = machine;
    this.#memory = [...machine.presentMemory].sort((a, b) => a.start - b.start);
    this.hostStage2 = new HostStage2({
      mayMap: (address) => !this.isMemory(pfnOf(address), 1) || this.states.host(pfnOf(address)) !== NOPAGE,
      mayMapBlock: (address, sizeBytes) => this.#mayMapBlock(address, sizeBytes),
    });
  }

  /** True when all of the pages are memory of one range. */
  isMemory(pfn: number, pages: number): boolean {
    const start = pfn * PAGE_4K;
    const end = start + pages * PAGE_4K;
    return this.#memory.some((range) => range.start <= start && end <= range.end);
  }

  /** 0 when every page is memory in that state of the host, else -EPERM. */
  checkHost(pfn: number, pages: number, state: number): number {
    if (!this.isMemory(pfn, pages)) return -ERRNO.EPERM;
    for (let i = 0; i < pages; i++) if (this.states.host(pfn + i) !== state) return -ERRNO.EPERM;
    return 0;
  }

  /** The host lends a page to the hypervisor. */
  hostShareHyp(pfn: number): number {
    const refused = this.checkHost(pfn, 1, OWNED) || this.#checkHyp(pfn, 1, NOPAGE);
    if (refused !== 0) return refused;
    this.states.setHyp(pfn, SHARED_BORROWED);
    this.states.setHost(pfn, SHARED_OWNED);
    return 0;
  }

  /** The host takes back what it lent; -EBUSY while the hypervisor uses it. */
  hostUnshareHyp(pfn: number): number {
    const refused = this.checkHost(pfn, 1, SHARED_OWNED) || this.#checkHyp(pfn, 1, SHARED_BORROWED);
    if (refused !== 0) return refused;
    if (this.states.pins(pfn) > 0) return -ERRNO.EBUSY;
    this.states.setHyp(pfn, NOPAGE);
    this.states.setHost(pfn, OWNED);
    return 0;
  }

  /** The host gives pages to the hypervisor for good and loses access. */
  hostDonateHyp(pfn: number, pages: number): number {
    if (!Number.isSafeInteger(pfn + pages)) return -ERRNO.EINVAL;
    const refused = this.checkHost(pfn, pages, OWNED) || this.#checkHyp(pfn, pages, NOPAGE);
    if (refused !== 0) return refused;
    for (let i = 0; i < pages; i++) {
      this.states.setHyp(pfn + i, OWNED);
      this.states.setHost(pfn + i, NOPAGE);
    }
    this.hostStage2.unmap(pfn, pages);
    return 0;
  }

  /** The hypervisor gives its pages to the host. Their contents go with them: whoever calls has wiped what is secret. */
  hypDonateHost(pfn: number, pages: number): number {
    if (!Number.isSafeInteger(pfn + pages)) return -ERRNO.EINVAL;
    const refused = this.#checkHyp(pfn, pages, OWNED) || this.checkHost(pfn, pages, NOPAGE);
    if (refused !== 0) return refused;
    for (let i = 0; i < pages; i++) if (this.states.pins(pfn + i) > 0) return -ERRNO.EBUSY;
    for (let i = 0; i < pages; i++) this.states.setHyp(pfn + i, NOPAGE);
    this.giveHost(pfn, pages);
    return 0;
  }

  /** The hypervisor begins to use a page that the host lent: the host cannot unshare it. */
  pinShared(pfn: number): number {
    const refused = this.checkHost(pfn, 1, SHARED_OWNED) || this.#checkHyp(pfn, 1, SHARED_BORROWED);
    if (refused !== 0) return refused;
    this.states.addPin(pfn, 1);
    return 0;
  }

  unpinShared(pfn: number): void {
    this.states.addPin(pfn, -1);
  }

  /** Makes pages the host's own, mapped again. */
  giveHost(pfn: number, pages: number): void {
    for (let i = 0; i < pages; i++) this.states.setHost(pfn + i, OWNED);
    this.hostStage2.map(pfn, pages);
  }

  /** Zeroes pages past the caches, so that no old line comes back. */
  wipe(pfn: number, pages: number): void {
    const start = pfn * PAGE_4K;
    const end = start + pages * PAGE_4K;
    for (const { cache } of this.machine.packages) cache.discard(start, end);
    this.machine.memory.claim(start, end, 0);
  }

  /** What an access of the host meets: nothing, a mapping made on demand, or an abort injected into the host. */
  checkHostAccess(address: number, lengthBytes: number): void {
    for (let at = address; at < address + lengthBytes; at = (pfnOf(at) + 1) * PAGE_4K) {
      if (this.hostStage2.isMapped(at) || this.hostStage2.fault(at)) continue;
      throw new CpuException(VECTOR_PF, `the host's stage 2 does not map 0x${at.toString(16)}`);
    }
  }

  #checkHyp(pfn: number, pages: number, state: number): number {
    for (let i = 0; i < pages; i++) if (this.states.hyp(pfn + i) !== state) return -ERRNO.EPERM;
    return 0;
  }

  #mayMapBlock(address: number, sizeBytes: number): boolean {
    const first = Math.floor(address / sizeBytes) * (sizeBytes / PAGE_4K);
    const pages = sizeBytes / PAGE_4K;
    if (!this.isMemory(first, pages)) return this.#isAllDevice(first, pages);
    for (let chunk = first / 512; chunk < (first + pages) / 512; chunk++) {
      if (!this.states.hostMayUseAll(chunk)) return false;
    }
    return true;
  }

  #isAllDevice(pfn: number, pages: number): boolean {
    const start = pfn * PAGE_4K;
    const end = start + pages * PAGE_4K;
    return !this.#memory.some((range) => range.start < end && start < range.end);
  }
}
