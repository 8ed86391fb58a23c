/**
 * TDH.SERVTD.BIND: binds a service TD to a TD (module facts 14). In: RCX TDR of the target, RDX TDR of the service TD, R8
 * slot, R9 type, R10 attributes. Out: RCX binding handle, R10 to R13 UUID of the target.
 */
import { TDH } from '../../abi/leaves.ts';
import { OP_STATE } from '../../abi/op-states.ts';
import { OPERAND } from '../../abi/operands.ts';
import { R10, RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { TDCS } from '../td/layout.ts';
import { ALLOWED_ON_OTHER_TD } from '../td/op-state.ts';
import { enterOpState, lockTdr } from '../td/operands.ts';
import {
  BINDING_STATE,
  bindingHandle,
  bindingRequest,
  ignoredParts,
  lockBindings,
  ServiceTdBinding,
  UUID_QWORDS,
  uuidOf,
} from '../td/service-td.ts';
import { readTdInfo } from '../td/td-info.ts';
import type { TdxModule } from '../tdx-module.ts';

/** What a service TD needs to reach its target. */
interface Bound {
  readonly handle: bigint;
  readonly targetUuid: readonly bigint[];
}

/** @internal */
export const servtdBind: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { q } = lp.regs;
  const bound = bind(module, lp, held);
  const isRefused = typeof bound === 'bigint';
  q[RCX] = isRefused ? 0n : bound.handle;
  for (let i = 0; i < UUID_QWORDS; i++) q[R10 + i] = isRefused ? 0n : bound.targetUuid[i]!;
  return isRefused ? bound : STATUS.TDX_SUCCESS;
}

function bind(module: TdxModule, { regs }: LogicalProcessor, held: Held): Bound | bigint {
  if (regs.q[RDX] === regs.q[RCX]) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  const target = lockTdr(module, held, regs, RCX, 'shared');
  if (typeof target === 'bigint') return target;
  const entered = enterOpState(held, target, TDH.servtdBind, 'shared');
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const service = lockTdr(module, held, regs, RDX, 'shared');
  if (typeof service === 'bigint') return service;
  const serves = enterOpState(held, service, TDH.servtdBind, 'shared', ALLOWED_ON_OTHER_TD);
  if (serves !== STATUS.TDX_SUCCESS) return serves;
  const request = bindingRequest(regs);
  if (typeof request === 'bigint') return request;
  const locked = lockBindings(held, target.tdcs, 'exclusive', false);
  if (locked !== STATUS.TDX_SUCCESS) return locked;
  const info = readTdInfo(service.tdcs, false, ignoredParts(request.attributes));
  if (typeof info === 'bigint') return withOperand(info, OPERAND.RTMR);

  const binding = new ServiceTdBinding(target.tdcs, request.slot);
  if (binding.state === BINDING_STATE.NOT_BOUND) {
    const state = target.tdcs.u32(TDCS.OP_STATE);
    // Once SERVTD_HASH is made, only what it contains can be bound.
    if (state > OP_STATE.INITIALIZED) return withOperand(STATUS.TDX_OP_STATE_INCORRECT, state);
    binding.describe(request, info.hash);
  } else {
    const compared = binding.compare(request, info.hash);
    if (compared !== STATUS.TDX_SUCCESS) return compared;
  }
  const serviceUuid = uuidOf(service.tdr);
  binding.bind(serviceUuid);
  return {
    handle: bindingHandle(target.address, request.slot, serviceUuid),
    targetUuid: uuidOf(target.tdr),
  };
}
