/** Deliberate faults of a module, each with the invariants that must find it. */
import { PAGE_2M, PAGE_4K } from '../../../src/abi/address.ts';
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
  readonly before?: (lp: LogicalProcessor) => void;
  /** Runs when the leaf succeeded; `input` are the registers before. */
  readonly after?: (lp: LogicalProcessor, input: BigUint64Array) => void;
}

/** Makes `leaf` do something else before or after its work. */
function patch(module: TdxModule, leaf: number, { before, after }: Hooks): void {
  const original = module.seamcall.bind(module);
  module.seamcall = (lp) => {
    const input = lp.regs.q.slice();
    const isMeant = (input[RAX]! & 0xffffn) === BigInt(leaf);
    if (isMeant) before?.(lp);
    original(lp);
    if (isMeant && lp.regs.q[RAX] === 0n) after?.(lp, input);
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

export const FAULTS: readonly Fault[] = [
  {
    what: 'counts a page as tracked without waiting for the vCPUs',
    invariant: 'noPageReturnsWhileATlbReachesIt',
    sabotage: (module) =>
      patch(module, TDH.memPageRemove, {
        before: ({ regs }) => {
          const td = tdAt(module, address(regs.q[RDX]));
          if (td === undefined || !isLive(td) || td.tdr.u32(TDR.NUM_TDCX) < 6) return;
          if (td.tdcs.u32(TDCS.OP_STATE) === 0) return;
          const { entry } = td.sept().walk(address(regs.q[RCX]), Number(regs.q[RCX]! & 1n));
          const page = td.sept().pfnOf(entry) * PAGE_4K;
          if (Number(regs.q[RCX]! & 7n) === 0 && metadata(module, page) !== undefined) {
            metadata(module, page)!.bepoch = 0n;
          }
        },
      }),
  },
  {
    what: 'frees a KeyID without waiting for the packages',
    invariant: 'keyIdIsReusedOnlyAfterWriteBack',
    sabotage: (module) =>
      patch(module, TDH.mngKeyFreeid, { before: () => module.kot.pendingPackages.fill(0) }),
  },
  {
    what: 'gives a KeyID to two TDs',
    invariant: 'keyIdBelongsToOneTd',
    sabotage: (module) =>
      patch(module, TDH.mngCreate, {
        before: ({ regs }) => {
          if (regs.q[RDX]! < 60n && regs.q[RDX]! > 40n) {
            module.kot.states[Number(regs.q[RDX])] = HKID_STATE.FREE;
          }
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
          if (entry?.type === PAGE_TYPE.REG) entry.type = PAGE_TYPE.NDA;
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
          if (entry?.type === PAGE_TYPE.REG) entry.type = PAGE_TYPE.NDA;
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
          if (td?.tdr.u32(TDR.LIFECYCLE_STATE) === LIFECYCLE.TEARDOWN) td.tdr.setU64(TDR.CHLDCNT, 0n);
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
          if (td !== undefined && isLive(td) && td.tdr.u32(TDR.NUM_TDCX) >= 6) {
            td.tdcs.setU32(TDCS.NUM_ASSOC_VCPUS, 0);
          }
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
          if (td === undefined || !isLive(td)) return;
          td.tdvpr(page).setU32(TDVPS.ASSOC_LPID, NO_LP);
          td.tdvpr(page).setU8(TDVPS.VCPU_STATE, VCPU_STATE.READY);
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
          module.trustDomains.set(tdr, td);
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
