/** The table of host leaves, indexed by leaf number. A leaf that is not here answers as one the ABI lacks. */
import { TDH } from '../abi/leaves.ts';
import type { Leaf } from './leaf.ts';
import { phymemCacheWb } from './leaves/phymem-cache-wb.ts';
import { phymemPageRdmd } from './leaves/phymem-page-rdmd.ts';
import { phymemPageWbinvd } from './leaves/phymem-page-wbinvd.ts';
import { phymemPamtAdd } from './leaves/phymem-pamt-add.ts';
import { phymemPamtRemove } from './leaves/phymem-pamt-remove.ts';
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

const LEAVES: readonly (readonly [number: number, leaf: Leaf])[] = [
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
