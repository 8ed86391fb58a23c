/**
 * Sparse physical memory with a KeyID on every access.
 *
 * Every 64-byte line has an owner: the KeyID it was last written with (0 for memory never written). The rules:
 * - a private KeyID reading a line it does not own consumes a failed integrity check: #MC;
 * - a shared KeyID reading a line that a private KeyID owns gets zeroes;
 * - a shared KeyID reading a line that another shared KeyID wrote gets noise (the wrong key's decryption);
 * - a write takes the line over; a private KeyID writing part of a line it does not own has to read the rest
 *   first, so that is #MC as well, unless the line was never written;
 * - on machines with the partial-write erratum, a shared KeyID writing part of a line that a private KeyID
 *   owns poisons it: every later read by anybody is #MC until MOVDIR64B writes the whole line.
 * Accesses outside present memory read as ones and store nothing.
 */
import { type AddressRange, CACHE_LINE, offsetIn, PAGE_4K, pfnOf } from '../abi/address.ts';
import { MachineCheck } from './exceptions.ts';
import { FrameStore } from './frames.ts';
import { OwnedRanges } from './owned-ranges.ts';
import { packPages, unpackPages } from './packed-pages.ts';

const LINES_PER_PAGE = PAGE_4K / CACHE_LINE;

/** Owner of a page whose contents are gone. */
const DROPPED = -2;

/** A page that has contents. @internal */
export interface Page {
  /** Byte offset of the contents in the frame store. */
  readonly frame: number;
  /** Owner of every line, -1 when `owners` tells them apart, or DROPPED. */
  owner: number;
  owners: Uint16Array | null;
  /** One flag per line; null while no line is poisoned. */
  poison: Uint8Array | null;
}

/** Where a page's contents are; see `PhysicalMemory.map`. @public */
export type PageMapping = Readonly<Pick<Page, 'frame' | 'owner' | 'poison'>>;

/** How a write reaches memory: ordinary stores, or a direct store of whole lines (MOVDIR64B). @public */
export type StoreKind = 'store' | 'direct';

/** @public */
export interface MemoryOptions {
  readonly present: (address: number) => boolean;
  readonly isPrivateKeyId: (keyId: number) => boolean;
  readonly partialWriteErratum: boolean;
}

/** @public */
export class PhysicalMemory {
  readonly frames = new FrameStore();
  readonly #options: MemoryOptions;
  readonly #pages = new Map<number, Page>();
  #ownerChanges = 0;
  /** Owners of zero-filled memory that has no frame. */
  readonly #claims = new OwnedRanges();

  constructor(options: MemoryOptions) {
    this.#options = options;
  }

  /** A number that is another one once any line has another owner or poison: what `isIntact` says holds until then. */
  get ownerChanges(): number {
    return this.#ownerChanges;
  }

  /** Copies `length` bytes at `address` as KeyID `keyId` sees them. Throws MachineCheck. */
  read(address: number, length: number, keyId: number): Uint8Array {
    const out = new Uint8Array(length);
    this.#forEachPage(address, length, (pfn, offset, size, done) => {
      const page = this.#pages.get(pfn);
      if (page === undefined) {
        this.#readUnframed(pfn, offset, size, keyId, out, done);
        return;
      }
      const bytes = this.frames.bytes.subarray(page.frame + offset, page.frame + offset + size);
      if (page.owner === keyId && page.poison === null) out.set(bytes, done);
      else this.#readLines(pfn, page, offset, bytes, keyId, out, done);
    });
    return out;
  }

  /**
   * Copies `length` bytes within one page, as KeyID `keyId` sees them, to byte offset `to` of the frame store. Throws
   * MachineCheck.
   */
  readToFrame(address: number, length: number, keyId: number, to: number): void {
    const { bytes } = this.frames;
    const page = this.#pages.get(pfnOf(address));
    if (page !== undefined && isMapped(page, keyId)) {
      const from = page.frame + offsetIn(address, PAGE_4K);
      bytes.copyWithin(to, from, from + length);
    } else bytes.set(this.read(address, length, keyId), to);
  }

  /** Little-endian 64-bit load. Throws MachineCheck. */
  read64(address: number, keyId: number): bigint {
    return new DataView(this.read(address, 8, keyId).buffer).getBigUint64(0, true);
  }

  /** Stores `bytes` at `address` under `keyId`. Throws MachineCheck for a partial write by a non-owner. */
  write(address: number, bytes: Uint8Array, keyId: number, kind: StoreKind = 'store'): void {
    this.#forEachPage(address, bytes.length, (pfn, offset, size, done) => {
      const page = this.#pages.get(pfn) ?? this.#createPage(pfn);
      if (page === undefined) return;
      if (page.owner !== keyId || page.poison !== null) this.#takeLines(pfn, page, offset, size, keyId, kind);
      this.frames.bytes.set(bytes.subarray(done, done + size), page.frame + offset);
    });
  }

  /** Little-endian 64-bit store. */
  write64(address: number, value: bigint, keyId: number): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, value, true);
    this.write(address, bytes, keyId);
  }

  /**
   * Zeroes whole pages with MOVDIR64B under `keyId`, which owns every line afterwards and no poison remains.
   * Costs nothing per page that has no contents. `start` and `end` are multiples of 4 KiB.
   */
  claim(start: number, end: number, keyId: number): void {
    this.#ownerChanges++;
    this.#dropFrames(start, end);
    this.#claims.set(start, end, keyId);
  }

  /**
   * Copies the page at `from` as KeyID `fromKeyId` sees it over the page at `to`, by direct stores under `toKeyId`.
   * Throws MachineCheck.
   */
  copyPage(from: number, fromKeyId: number, to: number, toKeyId: number): void {
    const source = this.#pages.get(pfnOf(from));
    const isInPlace = source !== undefined && isMapped(source, fromKeyId);
    const copy = isInPlace ? undefined : this.read(from, PAGE_4K, fromKeyId);
    const target = this.#pages.get(pfnOf(to)) ?? this.#createPage(pfnOf(to), false);
    if (target === undefined) return;
    const { bytes } = this.frames;
    if (copy === undefined) bytes.copyWithin(target.frame, source!.frame, source!.frame + PAGE_4K);
    else bytes.set(copy, target.frame);
    this.#ownerChanges++;
    target.owner = toKeyId;
    target.owners = null;
    target.poison = null;
  }

  /**
   * Byte offset in `frames` of the whole page `pfn`, for software that holds its key and works on it in place.
   * Throws MachineCheck when a line is poisoned or belongs to another key, as reading the page would.
   */
  frameOf(pfn: number, keyId: number): number {
    return this.map(pfn, keyId).frame;
  }

  /** `frameOf` as a mapping that can be kept: good again as long as `isMapped` says so. */
  map(pfn: number, keyId: number): PageMapping {
    const page = this.#pages.get(pfn) ?? this.#createPage(pfn);
    if (page === undefined) throw new MachineCheck(pfn * PAGE_4K, 'no memory answers');
    if (!isMapped(page, keyId)) this.read(pfn * PAGE_4K, PAGE_4K, keyId);
    return page;
  }

  /** True when a load of the line at `address` under `keyId` gives what `keyId` stored: no other owner, no poison. */
  isIntact(address: number, keyId: number): boolean {
    const page = this.#pages.get(pfnOf(address));
    if (page === undefined) return this.#claims.at(address) === keyId;
    return isMapped(page, keyId) || (this.ownerAt(address) === keyId && !this.isPoisoned(address));
  }

  /** Owner of the line at `address`. */
  ownerAt(address: number): number {
    const page = this.#pages.get(pfnOf(address));
    if (page === undefined) return this.#claims.at(address);
    return page.owner >= 0 ? page.owner : page.owners![Math.floor(offsetIn(address, PAGE_4K) / CACHE_LINE)]!;
  }

  /** True when the line at `address` is poisoned by the partial-write erratum. */
  isPoisoned(address: number): boolean {
    const page = this.#pages.get(pfnOf(address));
    return page?.poison?.[Math.floor(offsetIn(address, PAGE_4K) / CACHE_LINE)] === 1;
  }

  /** Ranges of frameless memory that a KeyID other than 0 owns, ascending, with the owner. */
  claimedRanges(): readonly (AddressRange & { readonly keyId: number })[] {
    return this.#claims.list();
  }

  /**
   * Gives memory of the KeyIDs that `owned` accepts to KeyID 0, zeroed and free of poison.
   */
  disown(owned: (keyId: number) => boolean): void {
    for (const { start, end, keyId } of [...this.#claims.list()]) {
      if (owned(keyId)) this.#claims.set(start, end, 0);
    }
    for (const [pfn, page] of [...this.#pages]) {
      const mixed = page.owners?.some(owned) === true || page.poison !== null;
      if (mixed || owned(page.owner)) this.claim(pfn * PAGE_4K, (pfn + 1) * PAGE_4K, 0);
    }
  }

  /** Number of pages that have contents of their own. */
  get framesInUse(): number {
    return this.#pages.size;
  }

  /** State for a saved machine. */
  save() {
    return { pages: packPages(this.#pages, this.frames), claims: this.#claims.save() };
  }

  /** Goes on from what `save` gave. The memory is fresh. */
  restore(saved: ReturnType<PhysicalMemory['save']>): void {
    for (const [pfn, page] of unpackPages(saved.pages, this.frames)) this.#pages.set(pfn, page);
    this.#claims.restore(saved.claims);
  }

  #forEachPage(
    address: number,
    length: number,
    visit: (pfn: number, offset: number, size: number, done: number) => void,
  ): void {
    for (let done = 0; done < length; ) {
      const at = address + done;
      const offset = offsetIn(at, PAGE_4K);
      const size = Math.min(PAGE_4K - offset, length - done);
      visit(pfnOf(at), offset, size, done);
      done += size;
    }
  }

  /** Gives the page a frame; `zeroed` false when the caller fills all of it. */
  #createPage(pfn: number, zeroed = true): Page | undefined {
    const address = pfn * PAGE_4K;
    if (!this.#options.present(address)) return undefined;
    const page: Page = {
      frame: zeroed ? this.frames.allocate() : this.frames.allocateUnset(),
      owner: this.#claims.at(address),
      owners: null,
      poison: null,
    };
    this.#pages.set(pfn, page);
    return page;
  }

  #dropFrames(start: number, end: number): void {
    if (this.#pages.size === 0) return;
    const first = start / PAGE_4K;
    const last = end / PAGE_4K;
    const drop = (pfn: number, page: Page): void => {
      this.frames.release(page.frame);
      page.owner = DROPPED;
      this.#pages.delete(pfn);
    };
    if (last - first > this.#pages.size) {
      for (const [pfn, page] of this.#pages) if (pfn >= first && pfn < last) drop(pfn, page);
      return;
    }
    for (let pfn = first; pfn < last; pfn++) {
      const page = this.#pages.get(pfn);
      if (page !== undefined) drop(pfn, page);
    }
  }

  #readUnframed(pfn: number, offset: number, size: number, keyId: number, out: Uint8Array, at: number): void {
    const address = pfn * PAGE_4K + offset;
    if (!this.#options.present(pfn * PAGE_4K)) {
      out.fill(0xff, at, at + size);
      return;
    }
    const owner = this.#claims.at(address);
    if (owner !== keyId) this.#checkReader(address, owner, keyId);
    // Noise needs written contents; an unframed page is all zero under every shared key.
  }

  #readLines(
    pfn: number,
    page: Page,
    offset: number,
    bytes: Uint8Array,
    keyId: number,
    out: Uint8Array,
    at: number,
  ): void {
    for (let i = 0; i < bytes.length; ) {
      const line = Math.floor((offset + i) / CACHE_LINE);
      const end = Math.min((line + 1) * CACHE_LINE - offset, bytes.length);
      const address = pfn * PAGE_4K + line * CACHE_LINE;
      if (page.poison?.[line] === 1) throw new MachineCheck(address, 'poisoned line read');
      const owner = page.owner >= 0 ? page.owner : page.owners![line]!;
      const sees = owner === keyId ? 'contents' : this.#checkReader(address, owner, keyId);
      for (; i < end; i++) {
        if (sees === 'contents') out[at + i] = bytes[i]!;
        else if (sees === 'noise') out[at + i] = bytes[i]! ^ noise(address + i, owner, keyId);
      }
    }
  }

  #checkReader(address: number, owner: number, keyId: number): 'zeroes' | 'noise' {
    if (this.#options.isPrivateKeyId(keyId)) {
      throw new MachineCheck(address, `KeyID ${keyId} read a line owned by KeyID ${owner}`);
    }
    return this.#options.isPrivateKeyId(owner) ? 'zeroes' : 'noise';
  }

  #takeLines(pfn: number, page: Page, offset: number, size: number, keyId: number, kind: StoreKind): void {
    this.#ownerChanges++;
    const { isPrivateKeyId, partialWriteErratum } = this.#options;
    const firstLine = Math.floor(offset / CACHE_LINE);
    const lastLine = Math.floor((offset + size - 1) / CACHE_LINE);
    for (let line = firstLine; line <= lastLine; line++) {
      const whole = offset <= line * CACHE_LINE && offset + size >= (line + 1) * CACHE_LINE;
      const owner = page.owner >= 0 ? page.owner : page.owners![line]!;
      if (whole && kind === 'direct') setPoison(page, line, 0);
      if (owner === keyId) continue;
      const address = pfn * PAGE_4K + line * CACHE_LINE;
      if (!whole && isPrivateKeyId(keyId) && owner !== 0) {
        throw new MachineCheck(address, `KeyID ${keyId} wrote part of a line owned by KeyID ${owner}`);
      }
      if (!whole && isPrivateKeyId(owner) && partialWriteErratum) setPoison(page, line, 1);
      setOwner(page, line, keyId);
    }
    if (size === PAGE_4K) {
      page.owner = keyId;
      page.owners = null;
    }
  }
}

/** True when `page` still has its contents and every line of it belongs to `keyId`. @public */
export function isMapped(page: PageMapping, keyId: number): boolean {
  return page.owner === keyId && page.poison === null;
}

function setOwner(page: Page, line: number, keyId: number): void {
  page.owners ??= new Uint16Array(LINES_PER_PAGE).fill(page.owner);
  page.owners[line] = keyId;
  page.owner = -1;
}

function setPoison(page: Page, line: number, value: 0 | 1): void {
  if (page.poison === null && value === 0) return;
  page.poison ??= new Uint8Array(LINES_PER_PAGE);
  page.poison[line] = value;
  if (page.poison.every((flag) => flag === 0)) page.poison = null;
}

/** A byte of the wrong key's decryption: any fixed function of address and keys will do, as long as it differs. */
function noise(address: number, owner: number, keyId: number): number {
  const mixed = Math.imul((address % 0x1_0000_0000) ^ Math.imul(owner + 1, 0x9e37_79b1), 0x85eb_ca6b) ^ keyId;
  return ((mixed >>> 13) & 0xff) | 1;
}
