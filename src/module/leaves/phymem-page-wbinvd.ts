/** TDH.PHYMEM.PAGE.WBINVD: writes back and invalidates the cache lines of a free page. In: RCX address with KeyID. */
import { PAGE_4K } from '../../abi/address.ts';
import { OPERAND } from '../../abi/operands.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { RCX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const phymemPageWbinvd: Leaf = { handler: run };

/** RCX bits 63:52, as bits of its upper half. */
const HIGH_LIMIT = 2 ** 20;
const BITS_OF_HALF = 32;

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  const { hkidStartBit, maxPa } = module.platform!;
  const low = lp.regs.d[2 * RCX]!;
  const high = lp.regs.d[2 * RCX + 1]!;
  if (low % PAGE_4K !== 0 || high >= HIGH_LIMIT) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const keyIdBits = ((1 << (maxPa - hkidStartBit)) - 1) << (hkidStartBit - BITS_OF_HALF);
  const address = (high & ~keyIdBits) * 2 ** BITS_OF_HALF + low;
  const walk = module.pamt.walk(address, 'shared');
  if (walk === undefined) return withOperand(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR, OPERAND.RCX);
  if (typeof walk === 'bigint') return withOperand(walk, OPERAND.RCX);
  const isFree = walk.type === PAGE_TYPE.NDA && !walk.block.isLent(address);
  walk.release();
  if (!isFree) return withOperand(STATUS.TDX_PAGE_METADATA_INCORRECT, OPERAND.RCX);
  lp.clflushPage(address);
  return STATUS.TDX_SUCCESS;
}
