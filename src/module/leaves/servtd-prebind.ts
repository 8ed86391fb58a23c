/**
 * TDH.SERVTD.PREBIND: announces the service TD that will be bound to a TD (module facts 14). In: RCX TDR of the target,
 * RDX address of the hash of the service TD's TDINFO, R8 slot, R9 type, R10 attributes.
 */
import { TDH } from '../../abi/leaves.ts';
import { MEASUREMENT_BYTES } from '../../abi/measurement.ts';
import { OPERAND } from '../../abi/operands.ts';
import { RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { readShared, sharedBuffer } from '../shared-buffer.ts';
import { type Held, locking } from '../td/held.ts';
import { enterOpState, lockTdr } from '../td/operands.ts';
import { BINDING_STATE, bindingRequest, lockBindings, ServiceTdBinding } from '../td/service-td.ts';
import type { TdxModule } from '../tdx-module.ts';

const HASH_ALIGN = 64;

/** @internal */
export const servtdPrebind: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const target = lockTdr(module, held, regs, RCX, 'shared');
  if (typeof target === 'bigint') return target;
  const entered = enterOpState(held, target, TDH.servtdPrebind, 'shared');
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const buffer = sharedBuffer(module.platform!, regs.q[RDX]!, HASH_ALIGN);
  if (buffer === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  const request = bindingRequest(regs);
  if (typeof request === 'bigint') return request;
  const locked = lockBindings(held, target.tdcs, 'exclusive', false);
  if (locked !== STATUS.TDX_SUCCESS) return locked;
  const binding = new ServiceTdBinding(target.tdcs, request.slot);
  if (binding.state === BINDING_STATE.BOUND) return STATUS.TDX_SERVTD_BOUND;
  binding.describe(request, readShared(lp, buffer, MEASUREMENT_BYTES));
  return STATUS.TDX_SUCCESS;
}
