/** TDH.MNG.KEY.FREEID: ends a blocked TD and frees its KeyID, when every package has written its lines back (module facts 5). */
import { OPERAND } from '../../abi/operands.ts';
import { RCX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { HKID_STATE } from '../kot.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { LIFECYCLE, TDR } from '../td/layout.ts';
import { lockTdr } from '../td/operands.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const mngKeyFreeid: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const td = lockTdr(module, held, lp.regs, RCX, 'exclusive');
  if (typeof td === 'bigint') return td;
  const { tdr, keyId } = td;
  if (tdr.u32(TDR.LIFECYCLE_STATE) !== LIFECYCLE.BLOCKED) return STATUS.TDX_LIFECYCLE_STATE_INCORRECT;
  const { kot } = module;
  if (!kot.lock.tryExclusive()) return withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.KOT);
  held.add({ release: () => kot.lock.releaseExclusive() });
  if (kot.pendingPackages[keyId] !== 0) return STATUS.TDX_WBCACHE_NOT_COMPLETE;

  kot.states[keyId] = HKID_STATE.FREE;
  tdr.setU32(TDR.LIFECYCLE_STATE, LIFECYCLE.TEARDOWN);
  return STATUS.TDX_SUCCESS;
}
