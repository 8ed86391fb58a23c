/** TDH.VP.CREATE: makes a free page the root of a new vCPU (module facts 6). */
import { TDH } from '../../abi/leaves.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { RCX, RDX } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { NO_LP, TDVPS } from '../td/layout.ts';
import { enterOpState, givePage, lockPage, lockTdr } from '../td/operands.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const vpCreate: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const td = lockTdr(module, held, lp.regs, RDX, 'shared');
  if (typeof td === 'bigint') return td;
  const entered = enterOpState(held, td, TDH.vpCreate, 'shared');
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const page = lockPage(module, held, lp.regs, RCX, 'exclusive', PAGE_TYPE.NDA);
  if (typeof page === 'bigint') return page;

  td.claimPage(page.address);
  const tdvpr = td.tdvpr(page.address);
  tdvpr.setU8(TDVPS.NUM_TDVPS_PAGES, 1);
  tdvpr.setU32(TDVPS.ASSOC_LPID, NO_LP);
  tdvpr.setN64(TDVPS.TDVPS_PAGE_PA, td.withKeyId(page.address));
  td.addChildren(1);
  givePage(page, PAGE_TYPE.TDVPR, td.address);
  return STATUS.TDX_SUCCESS;
}
