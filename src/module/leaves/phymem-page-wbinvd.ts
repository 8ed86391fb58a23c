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

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  const hpa = lp.regs.q[RCX]! & ~module.platform!.hkidMask;
  if (hpa % BigInt(PAGE_4K) !== 0n || hpa >> 52n !== 0n)
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const address = Number(hpa);
  const walk = module.pamt.walk(address, 'shared');
  if (walk === undefined) return withOperand(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR, OPERAND.RCX);
  if (typeof walk === 'bigint') return withOperand(walk, OPERAND.RCX);
  try {
    if (walk.entry.type !== PAGE_TYPE.NDA || walk.block.isLent(address)) {
      return withOperand(STATUS.TDX_PAGE_METADATA_INCORRECT, OPERAND.RCX);
    }
    lp.clflushPage(address);
    return STATUS.TDX_SUCCESS;
  } finally {
    walk.release();
  }
}
