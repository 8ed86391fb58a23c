/** The way of a service TD to the TD it serves: TDG.SERVTD.RD and WR (module facts 9, 14). */
import { NO_FIELD } from '../../abi/global-fields.ts';
import { TDG } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { LEVEL_4K, PAGE_TYPE } from '../../abi/page-types.ts';
import { R8, R9, R10, R11, R12, R13, RAX, RCX, RDX } from '../../abi/registers.ts';
import { STATUS_NAME_MASK, withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { ControlStructure } from '../td/control-structure.ts';
import { type Held, holding, lockField } from '../td/held.ts';
import { TDCS, TDR } from '../td/layout.ts';
import { answerRead, answerWrite } from '../td/metadata.ts';
import { ALLOWED_BY_GUEST_LEAF, isOpStateIn } from '../td/op-state.ts';
import { checkBuildState, plainHpa } from '../td/operands.ts';
import {
  BINDING_STATE,
  ignoredParts,
  lockBindings,
  MAX_SERVICE_TDS,
  readBindingHandle,
  ServiceTdBinding,
  uuidOf,
} from '../td/service-td.ts';
import { readTdInfo } from '../td/td-info.ts';
import { tdMetadata } from '../td/td-metadata.ts';
import { TrustDomain } from '../td/trust-domain.ts';
import type { Interrupted } from './gpa-access.ts';
import type { RunningVcpu } from './running-vcpu.ts';
import { exitToHost } from './td-exit.ts';

const UUID_REGISTERS = [R10, R11, R12, R13] as const;
const TWO_32 = 0x1_0000_0000n;

/** A status for the guest, or one that the host must know of: `trap`. */
type Answer = bigint | { readonly trap: bigint };

/** The TD that is served, locked, with all checks of its binding done. */
interface Served {
  readonly target: TrustDomain;
}

/**
 * TDG.SERVTD.RD or WR: one field of the TD that is served. In: RCX binding handle, RDX field id, WR: R8 value and R9 bits
 * to write, R10 to R13 UUID of the target. Out: R8 value, for WR the old one; RD: RDX next id.
 * @internal
 */
export function accessServedTd(
  vcpu: RunningVcpu,
  leaf: (typeof TDG)['servtdRd'] | (typeof TDG)['servtdWr'],
): bigint | Interrupted {
  const { regs, td, module } = vcpu;
  const { q } = regs;
  const [id, value] = [q[RDX]!, q[R8]!];
  const reads = leaf === TDG.servtdRd;
  if (reads) q[RDX] = NO_FIELD;
  q[R8] = 0n;
  const { tdr, slot } = readBindingHandle(q[RCX]!, uuidOf(td.tdr));
  if (slot >= MAX_SERVICE_TDS) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const answer = holding((held): Answer => {
    const found = findTarget(held, vcpu, leaf, tdr, slot);
    if (typeof found === 'bigint' || 'trap' in found) return found;
    const fields = tdMetadata(module, found.target);
    return reads
      ? answerRead(regs, fields, id, 'service', true)
      : answerWrite(regs, fields, id, 'service', value, q[R9]!);
  });
  if (typeof answer === 'bigint') return answer;
  q[RAX] = answer.trap;
  return exitToHost(vcpu, STATUS.TDX_CROSS_TD_TRAP, { extended: answer.trap, gpa: tdr });
}

function findTarget(
  held: Held,
  vcpu: RunningVcpu,
  leaf: number,
  address: bigint,
  slot: number,
): Served | Answer {
  const target = lockTarget(held, vcpu, address);
  if (!(target instanceof TrustDomain)) return target;
  const state = enterTarget(held, target, leaf);
  if (state !== STATUS.TDX_SUCCESS) return unlessBusy(state);
  const uuid = checkUuid(vcpu, target);
  if (uuid !== STATUS.TDX_SUCCESS) return uuid;
  const locked = lockBindings(held, target.tdcs, 'shared', true);
  if (locked !== STATUS.TDX_SUCCESS) return locked;
  const binding = new ServiceTdBinding(target.tdcs, slot);
  if (binding.state !== BINDING_STATE.BOUND) {
    return { trap: withOperand(STATUS.TDX_SERVTD_NOT_BOUND, slot) };
  }
  if (!binding.isBoundTo(uuidOf(vcpu.td.tdr))) return { trap: STATUS.TDX_SERVTD_UUID_MISMATCH };
  const info = readTdInfo(vcpu.tdcs, true, ignoredParts(binding.attributes));
  if (typeof info === 'bigint') return withOperand(info, OPERAND.RTMR);
  return binding.hasInfoHash(info.hash) ? { target } : { trap: STATUS.TDX_SERVTD_INFO_HASH_MISMATCH };
}

/** The service TD hears of a busy lock, the host of anything else that is wrong with the target. */
function unlessBusy(status: bigint): Answer {
  const name = status & STATUS_NAME_MASK;
  const isBusy = name === STATUS.TDX_OPERAND_BUSY || name === STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY;
  return isBusy ? status : { trap: status };
}

function lockTarget(held: Held, { module }: RunningVcpu, address: bigint): TrustDomain | Answer {
  const refuse = (status: bigint): Answer => unlessBusy(withOperand(status, OPERAND.TDR));
  const hpa = plainHpa(module.platform!, Number(address % TWO_32), Number(address / TWO_32));
  if (hpa === undefined) return refuse(STATUS.TDX_OPERAND_INVALID);
  const walk = module.pamt.walk(hpa, 'shared', LEVEL_4K, true);
  if (walk === undefined) return refuse(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR);
  if (typeof walk === 'bigint') return refuse(walk);
  held.add(walk);
  const isTdr = walk.level === LEVEL_4K && walk.entry.type === PAGE_TYPE.TDR;
  return isTdr ? new TrustDomain(module, hpa) : refuse(STATUS.TDX_PAGE_METADATA_INCORRECT);
}

function enterTarget(held: Held, target: TrustDomain, leaf: number): bigint {
  const built = checkBuildState(target);
  if (built !== STATUS.TDX_SUCCESS) return built;
  const locked = lockField(held, target.tdcs, TDCS.OP_STATE_LOCK, 'shared', true);
  if (locked !== STATUS.TDX_SUCCESS) return withOperand(locked, OPERAND.OP_STATE);
  const state = target.tdcs.u32(TDCS.OP_STATE);
  return isOpStateIn(ALLOWED_BY_GUEST_LEAF, leaf, state)
    ? STATUS.TDX_SUCCESS
    : withOperand(STATUS.TDX_OP_STATE_INCORRECT, state);
}

/** The target must be the TD that the caller means; one that was imported since tells its new UUID. */
function checkUuid({ regs }: RunningVcpu, { tdr, tdcs }: TrustDomain): bigint {
  const matches = (structure: ControlStructure, offset: number): boolean =>
    UUID_REGISTERS.every((register, i) => structure.u64(offset + 8 * i) === regs.q[register]);
  if (matches(tdr, TDR.TD_UUID)) return STATUS.TDX_SUCCESS;
  if (!matches(tdcs, TDCS.PRE_IMPORT_UUID)) return STATUS.TDX_TARGET_UUID_MISMATCH;
  for (const [i, register] of UUID_REGISTERS.entries()) regs.q[register] = tdr.u64(TDR.TD_UUID + 8 * i);
  return STATUS.TDX_TARGET_UUID_UPDATED;
}
