/** TDH.MR.EXTEND: measures 256 bytes of a page that was added to a TD under construction (module facts 8). */
import { offsetIn } from '../../abi/address.ts';
import { TDH } from '../../abi/leaves.ts';
import { EXTEND_CHUNK } from '../../abi/measurement.ts';
import { OPERAND } from '../../abi/operands.ts';
import { RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { gpaFrom } from '../td/gpa.ts';
import { type Held, locking } from '../td/held.ts';
import { isMeasurementCompatible, runningMeasurement } from '../td/measurement.ts';
import { enterOpState, lockTdr } from '../td/operands.ts';
import { putSeptDetails, SEPT_LEVEL } from '../td/sept.ts';
import { isLeafEntry, isSeptStateAllowed, SEPT_LOW } from '../td/sept-entry.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const mrExtend: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const gpa = gpaFrom(regs, RCX);
  const isAligned = offsetIn(regs.d[2 * RCX]!, EXTEND_CHUNK) === 0;
  const td = lockTdr(module, held, regs, RDX, 'exclusive');
  regs.q[RCX] = 0n;
  regs.q[RDX] = 0n;
  if (typeof td === 'bigint') return td;
  const entered = enterOpState(held, td, TDH.mrExtend);
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const ept = td.sept();
  if (!isAligned || gpa === undefined || gpa >= ept.gpaLimit) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  }
  const position = ept.walk(gpa, SEPT_LEVEL.PT_4K);
  const { entry, level } = position;
  if (!isLeafEntry(entry) || (entry.low & SEPT_LOW.RWX) === 0) {
    putSeptDetails(regs, ept, position);
    return withOperand(STATUS.TDX_EPT_ENTRY_NOT_PRESENT, OPERAND.RCX);
  }
  if (!isSeptStateAllowed(TDH.mrExtend, entry)) return STATUS.TDX_EPT_ENTRY_NOT_PRESENT;
  if (!isMeasurementCompatible(module, td)) return STATUS.TDX_INCOMPATIBLE_MRTD_CONTEXT;

  runningMeasurement(module, td).extend(gpa, ept.translate(entry, level, gpa), ept.keyId);
  return STATUS.TDX_SUCCESS;
}
