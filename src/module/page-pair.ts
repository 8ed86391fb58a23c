/** The operand of PHYMEM.PAMT.ADD and REMOVE: the 2 MiB range whose 4 KiB entries are meant. */
import { PAGE_2M, PAGE_4K } from '../abi/address.ts';
import { OPERAND } from '../abi/operands.ts';
import { LEVEL_2M } from '../abi/page-types.ts';
import { RCX } from '../abi/registers.ts';
import { withOperand } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import { plainHpa } from './td/operands.ts';
import type { TdxModule } from './tdx-module.ts';

/** Start of the range in RCX, or the status of a malformed one or of static PAMT. @internal */
export function rangeOperand(module: TdxModule, lp: LogicalProcessor): number | bigint {
  if (!module.pamt.dynamic) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
  const [low, high] = [lp.regs.d[2 * RCX]!, lp.regs.d[2 * RCX + 1]!];
  const isLevel2m = low % PAGE_4K === LEVEL_2M;
  const address = isLevel2m ? plainHpa(module.platform!, low - LEVEL_2M, high, PAGE_2M) : undefined;
  return address ?? withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
}
