/** Deliberate faults of a module, each with the invariants that must find it. */
import { PAGE_2M, PAGE_4K, pfnOf } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { LEVEL_2M, LEVEL_4K, PAGE_TYPE } from '../../../src/abi/page-types.ts';
import { R8, RAX, RCX, RDX } from '../../../src/abi/registers.ts';
import type { LogicalProcessor } from '../../../src/machine/lp.ts';
import { HKID_STATE } from '../../../src/module/kot.ts';
import { LIFECYCLE, NO_LP, TDCS, TDR, TDVPS, VCPU_STATE } from '../../../src/module/td/layout.ts';
import { TrustDomain } from '../../../src/module/td/trust-domain.ts';
import type { TdxModule } from '../../../src/module/tdx-module.ts';

export interface Fault {
  /** What the module does wrong. */
  readonly what: string;
  /** Invariants of which one has to be broken. */
  readonly invariant: string;
  readonly dynamicPamt?: boolean;
  readonly sabotage: (module: TdxModule) => void;
}

interface Hooks {
  /** Runs before the leaf; what it returns undoes it when the leaf failed. */
  readonly before?: (lp: LogicalProcessor) => (() => void) | undefined;
  /** Runs when the leaf succeeded; `input` are the registers before. */
  readonly after?: (lp: LogicalProcessor, input: BigUint64Array) => void;
}

/** Makes `leaf` do something else before or after its work. */
function patch(module: TdxModule, leaf: number, { before, after }: Hooks): void {
  const original = module.seamcall.bind(module);
  module.seamcall = (lp) => {
    const input = lp.regs.q.slice();
    const isMeant = (input[RAX]! & 0xffffn) === BigInt(leaf);
    const undo = isMeant ? before?.(lp) : undefined;
    original(lp);
    if (lp.regs.q[RAX] !== 0n) undo?.();
    else if (isMeant) after?.(lp, input);
  };
}

function address(value: bigint | undefined): number {
  return Number(value! & 0xf_ffff_ffff_f000n);
}

/** Metadata of a page in the TDMR; undefined elsewhere. */
function metadata(module: TdxModule, page: number) {
  return module.pamt.block(page)?.entry(page, LEVEL_4K);
}

/** The TD at `tdr`, when there is one. */
function tdAt(module: TdxModule, tdr: number): TrustDomain | undefined {
  return metadata(module, tdr)?.type === PAGE_TYPE.TDR ? new TrustDomain(module, tdr) : undefined;
}

/** The TD that owns the page, when it has all of its TDCS. */
function ownerOf(module: TdxModule, page: number): TrustDomain | undefined {
  const entry = metadata(module, page);
  const td = entry === undefined ? undefined : tdAt(module, entry.owner);
  return td !== undefined && td.tdr.u32(TDR.NUM_TDCX) >= 6 ? td : undefined;
}

function isLive(td: TrustDomain): boolean {
  return td.tdr.u32(TDR.LIFECYCLE_STATE) === LIFECYCLE.KEYS_CONFIGURED;
}

/** Changes an element of a table of the module; returns how to change it back. */
function changed(table: Uint8Array | Uint32Array, index: number, value: number): () => void {
  const old = table[index]!;
  table[index] = value;
  return () => {
    table[index] = old;
  };
}

export const FAULTS: readonly Fault[] = [
  {
    what: 'counts a page as tracked without waiting for the vCPUs',
    invariant: 'noPageReturnsWhileATlbReachesIt',
    sabotage: (module) =>
      patch(module, TDH.memPageRemove, {
        before: ({ regs }) => {
          const td = tdAt(module, address(regs.q[RDX]));
          if (td === undefined || !isLive(td) || td.tdr.u32(TDR.NUM_TDCX) < 6) return undefined;
          if (td.tdcs.u32(TDCS.OP_STATE) === 0 || (regs.q[RCX]! & 7n) !== 0n) return undefined;
          const { entry } = td.sept().walk(address(regs.q[RCX]), 0);
          const page = metadata(module, td.sept().pfnOf(entry) * PAGE_4K);
          if (page === undefined) return undefined;
          const { bepoch } = page;
          page.bepoch = 0n;
          return () => {
            page.bepoch = bepoch;
          };
        },
      }),
  },
  {
    what: 'frees a KeyID without waiting for the packages',
    invariant: 'keyIdIsReusedOnlyAfterWriteBack',
    sabotage: (module) =>
      patch(module, TDH.mngKeyFreeid, {
        before: ({ regs }) => {
          const keyId = tdAt(module, address(regs.q[RCX]))?.keyId;
          return keyId === undefined ? undefined : changed(module.kot.pendingPackages, keyId, 0);
        },
      }),
  },
  {
    what: 'gives a KeyID to two TDs',
    invariant: 'keyIdBelongsToOneTd',
    sabotage: (module) =>
      patch(module, TDH.mngCreate, {
        before: ({ regs }) => {
          const isTds = regs.q[RDX]! > 40n && regs.q[RDX]! < 60n;
          return isTds ? changed(module.kot.states, Number(regs.q[RDX]), HKID_STATE.FREE) : undefined;
        },
      }),
  },
  {
    what: 'forgets to clear the metadata of a page that it gives back',
    invariant: 'pamtAndSecureEptAgree',
    sabotage: (module) =>
      patch(module, TDH.memPageRemove, {
        after: ({ regs }) => {
          metadata(module, address(regs.q[RCX]))!.type = PAGE_TYPE.REG;
        },
      }),
  },
  {
    what: 'takes a page that belongs to somebody',
    invariant: 'pageHasOneOwner',
    sabotage: (module) =>
      patch(module, TDH.memPageAug, {
        before: ({ regs }) => {
          const entry = metadata(module, address(regs.q[R8]));
          if (entry?.type !== PAGE_TYPE.REG) return undefined;
          entry.type = PAGE_TYPE.NDA;
          return () => {
            entry.type = PAGE_TYPE.REG;
          };
        },
      }),
  },
  {
    what: 'maps a page of one TD in another',
    invariant: 'privatePageIsMappedOnce',
    sabotage: (module) =>
      patch(module, TDH.memPageAug, {
        before: ({ regs }) => {
          const entry = metadata(module, address(regs.q[R8]));
          if (entry?.type !== PAGE_TYPE.REG) return undefined;
          entry.type = PAGE_TYPE.NDA;
          return () => {
            entry.type = PAGE_TYPE.REG;
          };
        },
      }),
  },
  {
    what: 'leaves the memory of a page to the host',
    invariant: 'privatePagesAreUnreadableByTheHost',
    sabotage: (module) =>
      patch(module, TDH.vpAddcx, {
        after: (_lp, input) => {
          const page = address(input[RCX]);
          module.machine.memory.claim(page, page + PAGE_4K, 0);
        },
      }),
  },
  {
    what: 'does not count a page that it takes',
    invariant: 'childCountsBalance',
    sabotage: (module) =>
      patch(module, TDH.memSeptAdd, {
        after: (_lp, input) => {
          const td = tdAt(module, address(input[RDX]))!;
          td.addChildren(-1);
        },
      }),
  },
  {
    what: 'ends a TD that has pages',
    invariant: 'tdEndsWithoutPages',
    sabotage: (module) =>
      patch(module, TDH.phymemPageReclaim, {
        before: ({ regs }) => {
          const td = tdAt(module, address(regs.q[RCX]));
          if (td?.tdr.u32(TDR.LIFECYCLE_STATE) !== LIFECYCLE.TEARDOWN) return undefined;
          const count = td.tdr.u64(TDR.CHLDCNT);
          td.tdr.setU64(TDR.CHLDCNT, 0n);
          return () => td.tdr.setU64(TDR.CHLDCNT, count);
        },
      }),
  },
  {
    what: 'blocks the key of a TD that is on an LP',
    invariant: 'blockedTdIsOnNoLp',
    sabotage: (module) =>
      patch(module, TDH.mngVpflushdone, {
        before: ({ regs }) => {
          const td = tdAt(module, address(regs.q[RCX]));
          if (td === undefined || !isLive(td) || td.tdr.u32(TDR.NUM_TDCX) < 6) return undefined;
          const count = td.tdcs.u32(TDCS.NUM_ASSOC_VCPUS);
          td.tdcs.setU32(TDCS.NUM_ASSOC_VCPUS, 0);
          return () => td.tdcs.setU32(TDCS.NUM_ASSOC_VCPUS, count);
        },
      }),
  },
  {
    what: 'enters a vCPU that another LP has',
    invariant: 'vcpuRunsOnOneLp',
    sabotage: (module) =>
      patch(module, TDH.vpEnter, {
        before: ({ regs }) => {
          const page = address(regs.q[RCX]);
          const td = metadata(module, page)?.type === PAGE_TYPE.TDVPR ? ownerOf(module, page) : undefined;
          if (td === undefined || !isLive(td)) return undefined;
          const tdvpr = td.tdvpr(page);
          const [lp, state] = [tdvpr.u32(TDVPS.ASSOC_LPID), tdvpr.u8(TDVPS.VCPU_STATE)];
          tdvpr.setU32(TDVPS.ASSOC_LPID, NO_LP);
          tdvpr.setU8(TDVPS.VCPU_STATE, VCPU_STATE.READY);
          return () => {
            tdvpr.setU32(TDVPS.ASSOC_LPID, lp);
            tdvpr.setU8(TDVPS.VCPU_STATE, state);
          };
        },
      }),
  },
  {
    what: 'does not count a vCPU that it enters',
    invariant: 'epochCountsEqualEnteredVcpus',
    sabotage: (module) =>
      patch(module, TDH.vpEnter, {
        after: (_lp, input) => ownerOf(module, address(input[RCX]))?.tdcs.setU32(TDCS.REFCOUNT, 0),
      }),
  },
  {
    what: 'does not count a vCPU that an LP gets',
    invariant: 'associationsAreCounted',
    sabotage: (module) =>
      patch(module, TDH.vpInit, {
        after: (_lp, input) => ownerOf(module, address(input[RCX]))!.tdcs.setU32(TDCS.NUM_ASSOC_VCPUS, 0),
      }),
  },
  {
    what: 'keeps a lock',
    invariant: 'locksAreFreeBetweenCalls',
    sabotage: (module) =>
      patch(module, TDH.memTrack, {
        after: (_lp, input) => {
          const td = tdAt(module, address(input[RCX]))!;
          td.tdcs.tryLock(TDCS.SEPT_TREE_LOCK, 'shared');
        },
      }),
  },
  {
    what: 'tells the wrong owner of a page',
    invariant: 'answersTellTheState',
    sabotage: (module) =>
      patch(module, TDH.phymemPageReclaim, {
        after: ({ regs }) => {
          regs.q[RDX]! += BigInt(PAGE_4K);
        },
      }),
  },
  {
    what: 'says that it did what it refused',
    invariant: 'successIsFounded',
    sabotage: (module) => {
      const original = module.seamcall.bind(module);
      module.seamcall = (lp) => {
        const isUnblock = (lp.regs.q[RAX]! & 0xffffn) === BigInt(TDH.memRangeUnblock);
        original(lp);
        if (isUnblock) lp.regs.q[RAX] = 0n;
      };
    },
  },
  {
    what: 'forgets that a TD got another page',
    invariant: 'rememberedTdsAreCurrent',
    sabotage: (module) =>
      patch(module, TDH.mngAddcx, {
        after: (_lp, input) => {
          const tdr = address(input[RDX]);
          const td = new TrustDomain(module, tdr);
          if (td.tdr.u32(TDR.NUM_TDCX) !== 6) return;
          td.tdr.setU32(TDR.NUM_TDCX, 5);
          void td.tdcs;
          td.tdr.setU32(TDR.NUM_TDCX, 6);
          module.trustDomains.set(pfnOf(tdr), td);
        },
      }),
  },
  {
    what: 'miscounts the pages that a page pair describes',
    invariant: 'pagePairsCountTheirPages',
    dynamicPamt: true,
    sabotage: (module) =>
      patch(module, TDH.memSeptAdd, {
        after: (_lp, input) => {
          const range = address(input[R8]) - (address(input[R8]) % PAGE_2M);
          const entry = module.pamt.block(range)?.entry(range, LEVEL_2M);
          if (entry?.type === PAGE_TYPE.PAMT) entry.usedPages++;
        },
      }),
  },
];
