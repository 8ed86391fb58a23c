/** TDH.MNG.ADDCX: gives a TD the next page of its TDCS (module facts 5). */
import { TDH } from '../../abi/leaves.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { LIFECYCLE, TDCS, TDCS_PAGE, TDCS_PAGES_MAX, TDCS_PAGES_MIN, TDR } from '../td/layout.ts';
import { drawMigrationKey } from '../td/migration-key.ts';
import { ALLOWED_BY_HOST_LEAF, isOpStateIn } from '../td/op-state.ts';
import { givePage, lockPage, lockTdr } from '../td/operands.ts';
import { FREE_ENTRY, type SeptEntry } from '../td/sept-entry.ts';
import { forgetTrustDomain, ONES, type TrustDomain } from '../td/trust-domain.ts';
import type { TdxModule } from '../tdx-module.ts';

/** MSR bitmaps begin with every access intercepted, the secure EPT root with nothing mapped, other pages with zeroes. */
const FILLS: Readonly<Record<number, SeptEntry>> = {
  [TDCS_PAGE.MSR_BITMAPS]: ONES,
  [TDCS_PAGE.SEPT_ROOT]: FREE_ENTRY,
};

/** @internal */
export const mngAddcx: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const td = lockTdr(module, held, lp.regs, RDX, 'exclusive');
  if (typeof td === 'bigint') return td;
  const { tdr } = td;
  if (tdr.flag(TDR.FATAL)) return STATUS.TDX_TD_FATAL;
  if (tdr.u32(TDR.LIFECYCLE_STATE) !== LIFECYCLE.KEYS_CONFIGURED) return STATUS.TDX_TD_KEYS_NOT_CONFIGURED;
  const index = tdr.u32(TDR.NUM_TDCX);
  if (index >= TDCS_PAGES_MAX) return STATUS.TDX_TDCX_NUM_INCORRECT;
  const page = lockPage(module, held, lp.regs, RCX, 'exclusive', PAGE_TYPE.NDA);
  if (typeof page === 'bigint') return page;
  td.claimPage(page.address, FILLS[index]);
  const status = checkSixthOrLater(module, td, index);
  if (status !== STATUS.TDX_SUCCESS) return status;

  tdr.setN64(TDR.TDCX_PA + 8 * index, td.withKeyId(page.address));
  tdr.setU32(TDR.NUM_TDCX, index + 1);
  forgetTrustDomain(module, td.address);
  td.addChildren(1);
  givePage(page, PAGE_TYPE.TDCX, td.address);
  return STATUS.TDX_SUCCESS;
}

/** The sixth page completes the TDCS and draws the migration key; further ones only fit a TD not yet initialised. */
function checkSixthOrLater(module: TdxModule, td: TrustDomain, index: number): bigint {
  if (index + 1 < TDCS_PAGES_MIN) return STATUS.TDX_SUCCESS;
  const { tdcs } = td;
  if (index + 1 > TDCS_PAGES_MIN) {
    const state = tdcs.u32(TDCS.OP_STATE);
    const allowed = isOpStateIn(ALLOWED_BY_HOST_LEAF, TDH.mngAddcx, state);
    return allowed ? STATUS.TDX_SUCCESS : withOperand(STATUS.TDX_OP_STATE_INCORRECT, state);
  }
  return drawMigrationKey(module, tdcs) ? STATUS.TDX_SUCCESS : STATUS.TDX_RND_NO_ENTROPY;
}
