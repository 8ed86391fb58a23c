/** TDH.MR.FINALIZE: closes a TD's measurement, after which it can run (module facts 6, 8). */

import { TDH } from '../../abi/leaves.ts';
import { OP_STATE } from '../../abi/op-states.ts';
import { RCX } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { TDCS } from '../td/layout.ts';
import { endMeasurement, isMeasurementCompatible, runningMeasurement } from '../td/measurement.ts';
import { enterOpState, lockTdr } from '../td/operands.ts';
import { serviceTdHash } from '../td/service-td.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const mrFinalize: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const td = lockTdr(module, held, lp.regs, RCX, 'exclusive');
  if (typeof td === 'bigint') return td;
  const entered = enterOpState(held, td, TDH.mrFinalize);
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const { tdcs } = td;
  if (tdcs.u32(TDCS.NUM_VCPUS) === 0) return STATUS.TDX_NO_VCPUS;
  if (!isMeasurementCompatible(module, td)) return STATUS.TDX_INCOMPATIBLE_MRTD_CONTEXT;

  if (tdcs.u16(TDCS.MRTD_CONTEXT_VERSION) !== 0) {
    tdcs.setU16(TDCS.MRTD_CONTEXT_VERSION, 0);
    module.tdBuildCount--;
  }
  tdcs.setBytes(TDCS.MRTD, runningMeasurement(module, td).digest());
  endMeasurement(module, td);
  tdcs.setBytes(TDCS.SERVTD_HASH, serviceTdHash(tdcs));
  tdcs.setU32(TDCS.OP_STATE, OP_STATE.RUNNABLE);
  return STATUS.TDX_SUCCESS;
}
