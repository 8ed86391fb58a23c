/** TDH.VP.ADDCX: gives a vCPU the next page of its TDVPS (module facts 6). */
import { TDH } from '../../abi/leaves.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { TDVPS, TDVPS_PAGES_MAX, TDVPS_PAGES_MIN, TDVPS_PAGES_PER_L2_VM, VCPU_STATE } from '../td/layout.ts';
import { enterOpState, givePage, lockImplicitTdr, lockPage } from '../td/operands.ts';
import { ONES, ZEROES } from '../td/trust-domain.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const vpAddcx: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const root = lockPage(module, held, lp.regs, RDX, 'exclusive', PAGE_TYPE.TDVPR);
  if (typeof root === 'bigint') return root;
  const td = lockImplicitTdr(module, held, root.walk.entry.owner, 'shared');
  if (typeof td === 'bigint') return td;
  const entered = enterOpState(held, td, TDH.vpAddcx, 'shared');
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const tdvpr = td.tdvpr(root.address);
  const state = tdvpr.u8(TDVPS.VCPU_STATE);
  if (state !== VCPU_STATE.UNINITIALIZED) return withOperand(STATUS.TDX_VCPU_STATE_INCORRECT, state);
  const index = tdvpr.u8(TDVPS.NUM_TDVPS_PAGES);
  if (index >= TDVPS_PAGES_MAX) return STATUS.TDX_TDCX_NUM_INCORRECT;
  const page = lockPage(module, held, lp.regs, RCX, 'exclusive', PAGE_TYPE.NDA);
  if (typeof page === 'bigint') return page;

  td.claimPage(page.address, isL2MsrBitmap(index) ? ONES : ZEROES);
  tdvpr.setN64(TDVPS.TDVPS_PAGE_PA + 8 * index, td.withKeyId(page.address));
  tdvpr.setU8(TDVPS.NUM_TDVPS_PAGES, index + 1);
  td.addChildren(1);
  givePage(page, PAGE_TYPE.TDCX, td.address);
  return STATUS.TDX_SUCCESS;
}

/** Each L2 VM has a VMCS and two pages of MSR bitmaps, which begin with every access intercepted. */
function isL2MsrBitmap(index: number): boolean {
  return index >= TDVPS_PAGES_MIN && (index - TDVPS_PAGES_MIN) % TDVPS_PAGES_PER_L2_VM !== 0;
}
