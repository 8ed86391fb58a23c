/** TDH.MEM.TRACK: begins a TD's next epoch, once no vCPU runs in the one before (module facts 7). In: RCX TD. */
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { RCX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { TDCS } from '../td/layout.ts';
import { enterOpState, lockTdr } from '../td/operands.ts';
import { runningIn } from '../td/tlb-tracking.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memTrack: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const td = lockTdr(module, held, lp.regs, RCX, 'shared');
  if (typeof td === 'bigint') return td;
  const entered = enterOpState(held, td, TDH.memTrack, 'shared');
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const { tdcs } = td;
  // Nothing runs between the lock's taking and its release: that it is free is all that matters.
  if (tdcs.u16(TDCS.EPOCH_LOCK) !== 0) return withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.TD_EPOCH);
  const epoch = tdcs.u64(TDCS.TD_EPOCH);
  if (runningIn(td, epoch - 1n) !== 0) return STATUS.TDX_PREVIOUS_TLB_EPOCH_BUSY;

  tdcs.setU64(TDCS.TD_EPOCH, epoch + 1n);
  return STATUS.TDX_SUCCESS;
}
