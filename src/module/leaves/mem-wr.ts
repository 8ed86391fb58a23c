/**
 * TDH.MEM.WR: writes 8 bytes of a debug TD's memory. In: RCX guest address, RDX TD, R8 value. Out: R8 the bytes before
 * (module facts 7).
 */
import { TDH } from '../../abi/leaves.ts';
import { R8 } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { debugQword } from '../td/debug-memory.ts';
import { type Held, locking } from '../td/held.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memWr: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const value = lp.regs.q[R8]!;
  const place = debugQword(module, held, lp.regs, TDH.memWr);
  if (typeof place === 'bigint') return place;

  const { memory } = module.machine;
  lp.regs.q[R8] = memory.read64(place.address, place.keyId);
  memory.write64(place.address, value, place.keyId);
  return STATUS.TDX_SUCCESS;
}
