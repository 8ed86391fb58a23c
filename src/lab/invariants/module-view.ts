/** The module as it really is, for looking only: page metadata, secure EPTs, control structures. */
import { PAGE_2M, PAGE_4K, pfnOf } from '../../abi/address.ts';
import { OP_STATE } from '../../abi/op-states.ts';
import {
  LEVEL_1G,
  LEVEL_2M,
  LEVEL_4K,
  PAGE_TYPE,
  type PageLevel,
  type PageType,
} from '../../abi/page-types.ts';
import type { PhysicalMemory } from '../../machine/memory.ts';
import type { PamtEntry } from '../../module/pamt-block.ts';
import type { ControlStructure } from '../../module/td/control-structure.ts';
import { LIFECYCLE, TDCS, TDCS_PAGES_MIN, TDR } from '../../module/td/layout.ts';
import { TrustDomain } from '../../module/td/trust-domain.ts';
import type { TdxModule } from '../../module/tdx-module.ts';
import { readSept, type SeptView } from './sept-view.ts';

/** A page in use. @public */
export interface PageView {
  readonly address: number;
  readonly level: PageLevel;
  readonly type: PageType;
  /** Address of the owner's TDR. */
  readonly owner: number;
}

/** A metadata entry whose lock somebody holds. @public */
export interface LockView {
  readonly address: number;
  readonly level: PageLevel;
  readonly word: number;
}

/** Pages that the metadata name the same owner of. @public */
export interface OwnedPages {
  /** Address of the owner's TDR. */
  readonly owner: number;
  /** In pages of 4 KiB. */
  children: number;
  /** Pages of types REG and EPT, a large one counted once. */
  inTrees: number;
}

/** Columns of metadata entries. */
interface Columns {
  readonly types: Uint8Array;
  readonly owners: Float64Array;
  readonly locks: Uint16Array;
}

/** A TD whose TDR the metadata name. @public */
export interface TdView {
  readonly td: TrustDomain;
  readonly tdr: number;
  /** LIFECYCLE of its key. */
  readonly lifeCycle: number;
  /** Null before the TDCS is whole and after the key is freed. */
  readonly tdcs: ControlStructure | null;
  /** Trees of the TD and its L2 VMs; none before MNG.INIT and after the key is freed. */
  readonly septs: readonly SeptView[];
}

/** A look at a module between two calls. Nothing is kept beyond it. @public */
export class ModuleView {
  readonly module: TdxModule;
  readonly pages: readonly PageView[];
  /** Dynamic PAMT: 2 MiB ranges that have a page pair. */
  readonly pairedRanges: readonly number[];
  readonly locks: readonly LockView[];
  readonly #tds = new Map<number, TdView>();
  readonly #owned = new Map<number, OwnedPages>();

  constructor(module: TdxModule) {
    this.module = module;
    const pages: PageView[] = [];
    const pairedRanges: number[] = [];
    const locks: LockView[] = [];
    for (const block of module.pamt.blocks) {
      const { base, table1g, table2m, entries4k } = block.save();
      collect(table1g, base, LEVEL_1G, pages, pairedRanges, locks);
      collect(table2m, base, LEVEL_2M, pages, pairedRanges, locks);
      for (const [i, table] of entries4k) {
        collect(table, base + i * PAGE_2M, LEVEL_4K, pages, pairedRanges, locks);
      }
    }
    this.pages = pages;
    this.pairedRanges = pairedRanges;
    this.locks = locks;
    let owned: OwnedPages | undefined;
    for (const { address, level, type, owner } of pages) {
      if (type === PAGE_TYPE.TDR) {
        this.#tds.set(address, viewTd(module, address));
        continue;
      }
      // Neighbours mostly have the same owner.
      if (owned?.owner !== owner) owned = this.#ownedBy(owner);
      owned.children += 512 ** level;
      if (type === PAGE_TYPE.REG || type === PAGE_TYPE.EPT) owned.inTrees++;
    }
  }

  #ownedBy(owner: number): OwnedPages {
    const existing = this.#owned.get(owner);
    if (existing !== undefined) return existing;
    const owned = { owner, children: 0, inTrees: 0 };
    this.#owned.set(owner, owned);
    return owned;
  }

  /** What each owner has, by the address of its TDR. */
  get owned(): ReadonlyMap<number, Readonly<OwnedPages>> {
    return this.#owned;
  }

  /** The metadata entry of the page of this size at `address`; undefined outside the TDMRs. */
  pageAt(address: number, level: PageLevel): PamtEntry | undefined {
    return this.module.pamt.block(address)?.entry(address, level);
  }

  get memory(): PhysicalMemory {
    return this.module.machine.memory;
  }

  /** TDs by the address of their TDR. */
  get tds(): ReadonlyMap<number, TdView> {
    return this.#tds;
  }
}

function collect(
  { types, owners, locks }: Columns,
  base: number,
  level: PageLevel,
  pages: PageView[],
  pairedRanges: number[],
  locked: LockView[],
): void {
  const size = PAGE_4K * 512 ** level;
  for (let i = 0; i < types.length; i++) {
    if (types[i] !== PAGE_TYPE.NDA && types[i] !== PAGE_TYPE.RSVD) {
      const address = base + i * size;
      const type = types[i] as PageType;
      if (type === PAGE_TYPE.PAMT) pairedRanges.push(address);
      else pages.push({ address, level, type, owner: owners[i]! * PAGE_4K });
    }
    if (locks[i] !== 0) locked.push({ address: base + i * size, level, word: locks[i]! });
  }
}

function viewTd(module: TdxModule, tdr: number): TdView {
  const td = new TrustDomain(module, tdr);
  const lifeCycle = td.tdr.u32(TDR.LIFECYCLE_STATE);
  const hasKey = lifeCycle !== LIFECYCLE.TEARDOWN;
  const tdcs = hasKey && td.tdr.u32(TDR.NUM_TDCX) >= TDCS_PAGES_MIN ? td.tdcs : null;
  const isInitialised = tdcs !== null && tdcs.u32(TDCS.OP_STATE) !== OP_STATE.UNINITIALIZED;
  const septs: SeptView[] = [];
  if (isInitialised) {
    const vms = 1 + tdcs.u16(TDCS.NUM_L2_VMS);
    for (let vm = 0; vm < vms; vm++) {
      const root = pfnOf(Number(td.eptpWithoutKeyId(vm)));
      septs.push(readSept(module.machine.memory, td.sept(vm), root, vm));
    }
  }
  return { td, tdr, lifeCycle, tdcs, septs };
}
