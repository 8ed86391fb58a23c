/** The table of host leaves, indexed by leaf number. A leaf that is not here answers as one the ABI lacks. */
import { TDH } from '../abi/leaves.ts';
import type { Leaf } from './leaf.ts';
import { memPageAdd } from './leaves/mem-page-add.ts';
import { memPageAug } from './leaves/mem-page-aug.ts';
import { memPageDemote } from './leaves/mem-page-demote.ts';
import { memPagePromote } from './leaves/mem-page-promote.ts';
import { memPageRelocate } from './leaves/mem-page-relocate.ts';
import { memPageRemove } from './leaves/mem-page-remove.ts';
import { memRangeBlock } from './leaves/mem-range-block.ts';
import { memRangeUnblock } from './leaves/mem-range-unblock.ts';
import { memRd } from './leaves/mem-rd.ts';
import { memSeptAdd } from './leaves/mem-sept-add.ts';
import { memSeptRd } from './leaves/mem-sept-rd.ts';
import { memSeptRemove } from './leaves/mem-sept-remove.ts';
import { memTrack } from './leaves/mem-track.ts';
import { memWr } from './leaves/mem-wr.ts';
import { mngAddcx } from './leaves/mng-addcx.ts';
import { mngCreate } from './leaves/mng-create.ts';
import { mngInit } from './leaves/mng-init.ts';
import { mngKeyConfig } from './leaves/mng-key-config.ts';
import { mngKeyFreeid } from './leaves/mng-key-freeid.ts';
import { mngKeyReclaimid } from './leaves/mng-key-reclaimid.ts';
import { mngRd } from './leaves/mng-rd.ts';
import { mngVpflushdone } from './leaves/mng-vpflushdone.ts';
import { mngWr } from './leaves/mng-wr.ts';
import { mrExtend } from './leaves/mr-extend.ts';
import { mrFinalize } from './leaves/mr-finalize.ts';
import { phymemCacheWb } from './leaves/phymem-cache-wb.ts';
import { phymemPageRdmd } from './leaves/phymem-page-rdmd.ts';
import { phymemPageReclaim } from './leaves/phymem-page-reclaim.ts';
import { phymemPageWbinvd } from './leaves/phymem-page-wbinvd.ts';
import { phymemPamtAdd } from './leaves/phymem-pamt-add.ts';
import { phymemPamtRemove } from './leaves/phymem-pamt-remove.ts';
import { servtdBind } from './leaves/servtd-bind.ts';
import { servtdPrebind } from './leaves/servtd-prebind.ts';
import { sysConfig } from './leaves/sys-config.ts';
import { sysDisable } from './leaves/sys-disable.ts';
import { sysInfo } from './leaves/sys-info.ts';
import { sysInit } from './leaves/sys-init.ts';
import { sysKeyConfig } from './leaves/sys-key-config.ts';
import { sysLpInit } from './leaves/sys-lp-init.ts';
import { sysLpShutdown } from './leaves/sys-lp-shutdown.ts';
import { sysRd } from './leaves/sys-rd.ts';
import { sysRdall } from './leaves/sys-rdall.ts';
import { sysShutdown } from './leaves/sys-shutdown.ts';
import { sysTdmrInit } from './leaves/sys-tdmr-init.ts';
import { sysUpdate } from './leaves/sys-update.ts';
import { vpAddcx } from './leaves/vp-addcx.ts';
import { vpCreate } from './leaves/vp-create.ts';
import { vpEnter } from './leaves/vp-enter.ts';
import { vpFlush } from './leaves/vp-flush.ts';
import { vpInit } from './leaves/vp-init.ts';
import { vpRd } from './leaves/vp-rd.ts';
import { vpWr } from './leaves/vp-wr.ts';

const LEAVES: readonly (readonly [number: number, leaf: Leaf])[] = [
  [TDH.mngCreate, mngCreate],
  [TDH.mngKeyConfig, mngKeyConfig],
  [TDH.mngAddcx, mngAddcx],
  [TDH.mngInit, mngInit],
  [TDH.memSeptAdd, memSeptAdd],
  [TDH.memPageAdd, memPageAdd],
  [TDH.memPageAug, memPageAug],
  [TDH.memPageDemote, memPageDemote],
  [TDH.memPagePromote, memPagePromote],
  [TDH.memPageRelocate, memPageRelocate],
  [TDH.memPageRemove, memPageRemove],
  [TDH.memRangeBlock, memRangeBlock],
  [TDH.memRangeUnblock, memRangeUnblock],
  [TDH.memRd, memRd],
  [TDH.memSeptRd, memSeptRd],
  [TDH.memSeptRemove, memSeptRemove],
  [TDH.memTrack, memTrack],
  [TDH.memWr, memWr],
  [TDH.mrExtend, mrExtend],
  [TDH.mrFinalize, mrFinalize],
  [TDH.vpCreate, vpCreate],
  [TDH.vpAddcx, vpAddcx],
  [TDH.vpInit, vpInit],
  [TDH.vpFlush, vpFlush],
  [TDH.vpEnter, vpEnter],
  [TDH.mngVpflushdone, mngVpflushdone],
  [TDH.mngKeyFreeid, mngKeyFreeid],
  [TDH.mngKeyReclaimid, mngKeyReclaimid],
  [TDH.phymemPageReclaim, phymemPageReclaim],
  [TDH.mngRd, mngRd],
  [TDH.mngWr, mngWr],
  [TDH.vpRd, vpRd],
  [TDH.vpWr, vpWr],
  [TDH.phymemPageRdmd, phymemPageRdmd],
  [TDH.sysKeyConfig, sysKeyConfig],
  [TDH.sysInfo, sysInfo],
  [TDH.sysInit, sysInit],
  [TDH.sysRd, sysRd],
  [TDH.sysLpInit, sysLpInit],
  [TDH.sysTdmrInit, sysTdmrInit],
  [TDH.sysRdall, sysRdall],
  [TDH.phymemCacheWb, phymemCacheWb],
  [TDH.phymemPageWbinvd, phymemPageWbinvd],
  [TDH.sysLpShutdown, sysLpShutdown],
  [TDH.sysConfig, sysConfig],
  [TDH.sysShutdown, sysShutdown],
  [TDH.sysUpdate, sysUpdate],
  [TDH.servtdBind, servtdBind],
  [TDH.servtdPrebind, servtdPrebind],
  [TDH.phymemPamtAdd, phymemPamtAdd],
  [TDH.phymemPamtRemove, phymemPamtRemove],
  [TDH.sysDisable, sysDisable],
];

/** @internal */
export const HOST_LEAVES: readonly (Leaf | undefined)[] = (() => {
  const table: (Leaf | undefined)[] = Array.from({ length: TDH.sysDisable + 1 });
  for (const [number, leaf] of LEAVES) table[number] = leaf;
  return table;
})();
