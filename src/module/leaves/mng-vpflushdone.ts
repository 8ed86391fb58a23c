/** TDH.MNG.VPFLUSHDONE: blocks a TD's KeyID once no vCPU is associated; its cache lines may then be written back (module facts 5). */
import { OPERAND } from '../../abi/operands.ts';
import { RCX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { HKID_STATE } from '../kot.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { LIFECYCLE, TDCS, TDCS_PAGES_MIN, TDR } from '../td/layout.ts';
import { endMeasurement } from '../td/measurement.ts';
import { isInitialised } from '../td/op-state.ts';
import { lockTdr } from '../td/operands.ts';
import type { TrustDomain } from '../td/trust-domain.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const mngVpflushdone: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const td = lockTdr(module, held, lp.regs, RCX, 'exclusive');
  if (typeof td === 'bigint') return td;
  const { kot } = module;
  if (!kot.lock.tryExclusive()) return withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.KOT);
  held.add({ release: () => kot.lock.releaseExclusive() });
  const { tdr, keyId } = td;
  const state = tdr.u32(TDR.LIFECYCLE_STATE);
  if (state !== LIFECYCLE.KEYS_CONFIGURED && state !== LIFECYCLE.HKID_ASSIGNED) {
    return STATUS.TDX_LIFECYCLE_STATE_INCORRECT;
  }
  if (tdr.u32(TDR.NUM_TDCX) >= TDCS_PAGES_MIN) {
    const { tdcs } = td;
    const initialised = isInitialised(tdcs.u32(TDCS.OP_STATE));
    if (initialised && tdcs.u32(TDCS.NUM_ASSOC_VCPUS) !== 0) return STATUS.TDX_FLUSHVP_NOT_DONE;
    stopMeasuring(module, td);
  }

  kot.pendingPackages[keyId] = module.configuredPackages;
  tdr.setU32(TDR.LIFECYCLE_STATE, LIFECYCLE.BLOCKED);
  kot.states[keyId] = HKID_STATE.FLUSHED;
  return STATUS.TDX_SUCCESS;
}

/** A TD that ends before it is built no longer stands in the way of an update. */
function stopMeasuring(module: TdxModule, td: TrustDomain): void {
  const { tdcs } = td;
  if (tdcs.u16(TDCS.MRTD_CONTEXT_VERSION) === 0) return;
  tdcs.setU16(TDCS.MRTD_CONTEXT_VERSION, 0);
  endMeasurement(module, td);
  module.tdBuildCount--;
}
