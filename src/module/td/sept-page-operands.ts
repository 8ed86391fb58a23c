/** Pages that the host offers for the trees of a TD's VMs, one register each. */
import { PAGE_TYPE } from '../../abi/page-types.ts';
import type { Registers } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { TdxModule } from '../tdx-module.ts';
import type { Held } from './held.ts';
import { type LockedPage, lockPageAt, plainHpa } from './operands.ts';

/** Bit 63 of a page operand on output: the page was not used. Ignored on input. @public */
export const UNUSED_PAGE = 1n << 63n;

/** Locks the free page in `register`, whose bit 63 is ignored. @public */
export function lockNewSeptPage(
  module: TdxModule,
  held: Held,
  regs: Registers,
  register: number,
): LockedPage | bigint {
  const high = regs.d[2 * register + 1]! & 0x7fff_ffff;
  const address = plainHpa(module.platform!, regs.d[2 * register]!, high);
  if (address === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, register);
  return lockPageAt(module, held, address, register, 'exclusive', PAGE_TYPE.NDA);
}
