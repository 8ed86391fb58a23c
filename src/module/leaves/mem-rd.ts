/** TDH.MEM.RD: reads 8 bytes of a debug TD's memory. In: RCX guest address, RDX TD. Out: R8 (module facts 7). */
import { TDH } from '../../abi/leaves.ts';
import { R8 } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { debugQword } from '../td/debug-memory.ts';
import { type Held, locking } from '../td/held.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memRd: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const place = debugQword(module, held, lp.regs, TDH.memRd);
  if (typeof place === 'bigint') return place;

  lp.regs.q[R8] = module.machine.memory.read64(place.address, place.keyId);
  return STATUS.TDX_SUCCESS;
}
