/** A processor package: its cache and the key table of its memory controllers. */
import { alignDown, PAGE_4K } from '../abi/address.ts';
import type { PhysicalMemory } from './memory.ts';

/** Outcome of programming one KeyID with PCONFIG. @public */
export type PconfigOutcome = 'ok' | 'entropy-error' | 'device-busy';

/**
 * Which pages have dirty lines, and under which KeyID. A write-back lands in memory at whatever time it happens:
 * when the page belongs to another key by then, its lines lose their owner, and the owner's next read is #MC.
 * That is why a host flushes before it gives pages to a module.
 * @public
 */
export class PackageCache {
  readonly #memory: PhysicalMemory;
  readonly #dirty = new Map<number, number>();

  constructor(memory: PhysicalMemory) {
    this.#memory = memory;
  }

  markDirty(address: number, length: number, keyId: number): void {
    for (let at = alignDown(address, PAGE_4K); at < address + length; at += PAGE_4K) {
      this.#dirty.set(at / PAGE_4K, keyId);
    }
  }

  writeBackPage(pfn: number): void {
    const keyId = this.#dirty.get(pfn);
    if (keyId === undefined) return;
    this.#dirty.delete(pfn);
    const address = pfn * PAGE_4K;
    if (this.#memory.ownerAt(address) !== keyId) this.#memory.claim(address, address + PAGE_4K, keyId);
  }

  /** Forgets lines of `[start, end)` without a write-back: the whole of it has been overwritten past the caches. */
  discard(start: number, end: number): void {
    const first = start / PAGE_4K;
    const last = end / PAGE_4K;
    if (last - first < this.#dirty.size) for (let pfn = first; pfn < last; pfn++) this.#dirty.delete(pfn);
    else for (const pfn of this.#dirty.keys()) if (pfn >= first && pfn < last) this.#dirty.delete(pfn);
  }

  writeBackAll(): void {
    for (const pfn of [...this.#dirty.keys()]) this.writeBackPage(pfn);
  }

  get dirtyPages(): number {
    return this.#dirty.size;
  }

  /** State for a saved machine: KeyID by page frame number, in the order the pages were written. */
  save() {
    return this.#dirty;
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<PackageCache['save']>): void {
    for (const [pfn, keyId] of saved) this.#dirty.set(pfn, keyId);
  }
}

/** @public */
export class Package {
  readonly id: number;
  readonly cache: PackageCache;
  /** KeyIDs whose key has been programmed on this package. */
  readonly configuredKeyIds = new Set<number>();
  /** What the next key programming answers. */
  pconfigOutcome: PconfigOutcome = 'ok';

  constructor(id: number, memory: PhysicalMemory) {
    this.id = id;
    this.cache = new PackageCache(memory);
  }

  /** PCONFIG: draws and installs a key for `keyId`. */
  pconfig(keyId: number): PconfigOutcome {
    if (this.pconfigOutcome === 'ok') this.configuredKeyIds.add(keyId);
    return this.pconfigOutcome;
  }

  /** State for a saved machine. */
  save() {
    return { cache: this.cache.save(), configuredKeyIds: this.configuredKeyIds };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<Package['save']>): void {
    this.cache.restore(saved.cache);
    for (const keyId of saved.configuredKeyIds) this.configuredKeyIds.add(keyId);
  }
}
