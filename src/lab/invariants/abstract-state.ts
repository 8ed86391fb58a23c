/**
 * The abstract state: what must be true of a module, told from the calls it answered and their results alone. Plain
 * data; `apply-call.ts` carries it from call to call, `compare.ts` holds it against the module's real state.
 */
import { PAGE_2M, PAGE_4K } from '../../abi/address.ts';
import type { PageLevel, PageType } from '../../abi/page-types.ts';
import type { Effect } from './effects.ts';

/** What the calls of one configuration have in common. @public */
export interface AbstractPlatform {
  /** Lowest bit of a KeyID in a physical address. */
  readonly keyIdStartBit: number;
  readonly globalKeyId: number;
  readonly privateKeyIds: { readonly first: number; readonly last: number };
  /** The module's number of each LP's package, by LP index. */
  readonly packages: readonly number[];
  /** x2APIC id of each LP, which the module knows it by. */
  readonly lpIds: readonly number[];
  /** Packages that have the module's key, one bit each. */
  readonly configuredPackages: number;
  readonly dynamicPamt: boolean;
}

/** A page that the host gave to the module, and to whom it belongs. @public */
export interface AbstractPage {
  readonly type: PageType;
  readonly level: PageLevel;
  /** Address of the owner's TDR; 0 for a TDR itself. */
  readonly owner: number;
}

/** KOT states by name. @public */
export type KeyIdState = 'FREE' | 'ASSIGNED' | 'FLUSHED' | 'RESERVED';

/** @public */
export interface AbstractKeyId {
  state: KeyIdState;
  /** Packages that the module waits for before it frees the KeyID, one bit each. */
  pendingPackages: number;
  /** Packages whose caches may hold lines under this KeyID: its key was programmed there, and no write-back since. */
  cachedPackages: number;
}

/** Times between which a vCPU could have cached a translation; `until` is Infinity while it still can. @public */
export interface Reach {
  readonly since: number;
  readonly until: number;
}

/** States of a secure EPT entry outside migration; an entry that is free is not recorded. @public */
export type EntryState = 'NL_MAPPED' | 'NL_BLOCKED' | 'MAPPED' | 'BLOCKED' | 'PENDING' | 'PENDING_BLOCKED';

/** @public */
export interface AbstractEntry {
  state: EntryState;
  /** Address of the page it maps, or of the table it leads to. */
  page: number;
  /** Null when the guest could never go through it. */
  reach: Reach | null;
}

/** @public */
export interface AbstractVcpu {
  readonly tdvpr: number;
  /** Pages of its TDVPS, the TDVPR first. */
  readonly pages: number[];
  state: 'UNINITIALIZED' | 'READY' | 'ACTIVE' | 'DISABLED';
  /** Index of the LP that has it, or null. */
  lp: number | null;
  entered: boolean;
  /** TD epoch of its last entry. */
  epoch: bigint;
  /** Time of the last flush of its translations, and of its last moment in the guest (Infinity while there). */
  flushedAt: number;
  ranUntil: number;
}

/** Life cycle of a TD's key by name (module facts 5). @public */
export type LifeCycle = 'HKID_ASSIGNED' | 'KEYS_CONFIGURED' | 'BLOCKED' | 'TEARDOWN';

/** @public */
export interface AbstractTd {
  readonly tdr: number;
  readonly keyId: number;
  lifeCycle: LifeCycle;
  fatal: boolean;
  /** Packages that have its key, one bit each. */
  configuredPackages: number;
  opState: 'UNINITIALIZED' | 'INITIALIZED' | 'RUNNABLE';
  l2Vms: number;
  /** Pages of its TDCS in their order. */
  readonly tdcs: number[];
  /** 4 KiB pages that it owns, its TDR aside. */
  children: number;
  epoch: bigint;
  readonly vcpus: Map<number, AbstractVcpu>;
  initialisedVcpus: number;
  /** Secure EPT entries that are not free, by guest address plus level, as operands name them. */
  readonly sept: Map<number, AbstractEntry>;
  /** Tables of the L2 VMs 1 to 3, by the same key. */
  readonly l2Tables: readonly Map<number, number>[];
}

/** @public */
export interface AbstractState {
  readonly platform: AbstractPlatform;
  /** Private KeyIDs. */
  readonly keyIds: Map<number, AbstractKeyId>;
  /** Pages that are not free, by address. */
  readonly pages: Map<number, AbstractPage>;
  /** Dynamic PAMT: the two pages that hold the entries of a 2 MiB range, by its address. */
  readonly pairs: Map<number, readonly [number, number]>;
  /** The same pages, with the range each serves. */
  readonly lent: Map<number, number>;
  readonly tds: Map<number, AbstractTd>;
  /** KeyIDs of the package's last PHYMEM.CACHE.WB. */
  readonly writeBacks: Map<number, readonly number[]>;
  /** TDVPR of the vCPU that is entered, by LP index. */
  readonly running: Map<number, number>;
  /** Calls and guest events so far. */
  time: number;
  /** What the last of them did. */
  effects: Effect[];
}

/** The state of a module that is ready and has no TDs. @public */
export function createAbstractState(platform: AbstractPlatform): AbstractState {
  const keyIds = new Map<number, AbstractKeyId>();
  for (let keyId = platform.privateKeyIds.first; keyId <= platform.privateKeyIds.last; keyId++) {
    const state = keyId === platform.globalKeyId ? 'RESERVED' : 'FREE';
    keyIds.set(keyId, { state, pendingPackages: 0, cachedPackages: 0 });
  }
  return {
    platform,
    keyIds,
    pages: new Map(),
    pairs: new Map(),
    lent: new Map(),
    tds: new Map(),
    writeBacks: new Map(),
    running: new Map(),
    time: 0,
    effects: [],
  };
}

/** The page in use that `address` lies in, and where that page begins. @public */
export function pageHolding(
  { pages }: AbstractState,
  address: number,
): { readonly address: number; readonly page: AbstractPage } | undefined {
  for (const level of [0, 1, 2] as const) {
    const start = address - (address % (PAGE_4K * 512 ** level));
    const page = pages.get(start);
    if (page?.level === level) return { address: start, page };
  }
  return undefined;
}

/** True when the 2 MiB range at `address` has a page in use, be it smaller or larger. @public */
export function isRangeInUse(state: AbstractState, address: number): boolean {
  for (let page = address; page < address + PAGE_2M; page += PAGE_4K) {
    if (pageHolding(state, page) !== undefined) return true;
  }
  return false;
}

/** The TD that has the vCPU whose TDVPR is at `address`, with the vCPU. @public */
export function vcpuAt(
  state: AbstractState,
  address: number,
): { readonly td: AbstractTd; readonly vcpu: AbstractVcpu } | undefined {
  const page = state.pages.get(address);
  const td = page === undefined ? undefined : state.tds.get(page.owner);
  const vcpu = td?.vcpus.get(address);
  return td === undefined || vcpu === undefined ? undefined : { td, vcpu };
}

/** True when the vCPU may have cached a translation with this reach. @public */
export function mayHaveCached(vcpu: AbstractVcpu, reach: Reach | null): boolean {
  return reach !== null && vcpu.ranUntil > reach.since && vcpu.flushedAt < reach.until;
}
