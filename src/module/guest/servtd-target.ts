/** The way of a service TD to the TD it serves (docs/rules/guest.md). No service TD can be bound, so it never arrives. */
import { TDG } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { LEVEL_4K, PAGE_TYPE } from '../../abi/page-types.ts';
import { R8, R10, R11, R12, R13, RAX, RCX, RDX } from '../../abi/registers.ts';
import { STATUS_NAME_MASK, withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { ControlStructure } from '../td/control-structure.ts';
import { type Held, holding } from '../td/held.ts';
import { TDCS, TDR } from '../td/layout.ts';
import { isGuestLeafAllowed } from '../td/op-state.ts';
import { checkBuildState, plainHpa } from '../td/operands.ts';
import { TrustDomain } from '../td/trust-domain.ts';
import type { Interrupted } from './gpa-access.ts';
import type { RunningVcpu } from './running-vcpu.ts';
import { exitToHost } from './td-exit.ts';

/** A binding handle: slot in bits 11:0, address of the TDR in bits 51:12, all of it added to the service TD's UUID. */
const SLOT_MASK = 0xfffn;
const TDR_MASK = 0xf_ffff_ffff_f000n;
const MAX_SLOTS = 1;
const UUID_REGISTERS = [R10, R11, R12, R13] as const;
const TWO_32 = 0x1_0000_0000n;

/** A status for the guest, or one that the host must know of: `trap`. */
type Answer = bigint | { readonly trap: bigint };

/** TDG.SERVTD.RD or WR. In: RCX binding handle, RDX field id, R10 to R13 UUID of the target. @internal */
export function accessServedTd(
  vcpu: RunningVcpu,
  leaf: (typeof TDG)['servtdRd'] | (typeof TDG)['servtdWr'],
): bigint | Interrupted {
  const { regs, td } = vcpu;
  if (leaf === TDG.servtdRd) regs.q[RDX] = 0xffff_ffff_ffff_ffffn;
  regs.q[R8] = 0n;
  const handle = BigInt.asUintN(64, regs.q[RCX]! - td.tdr.u64(TDR.TD_UUID));
  const slot = Number(handle & SLOT_MASK);
  if (slot >= MAX_SLOTS) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const address = handle & TDR_MASK;
  const answer = holding((held) => findTarget(held, vcpu, leaf, address, slot));
  if (typeof answer === 'bigint') return answer;
  regs.q[RAX] = answer.trap;
  return exitToHost(vcpu, STATUS.TDX_CROSS_TD_TRAP, { extended: answer.trap, gpa: address });
}

function findTarget(held: Held, vcpu: RunningVcpu, leaf: number, address: bigint, slot: number): Answer {
  const target = lockTarget(held, vcpu, address);
  if (!(target instanceof TrustDomain)) return target;
  const state = enterTarget(held, target, leaf);
  if (state !== STATUS.TDX_SUCCESS) return unlessBusy(state);
  const uuid = checkUuid(vcpu, target);
  if (uuid !== STATUS.TDX_SUCCESS) return uuid;
  const locked = lockField(held, target.tdcs, TDCS.SERVTD_BINDINGS_LOCK);
  if (locked !== STATUS.TDX_SUCCESS) return withOperand(locked, OPERAND.SERVTD_BINDINGS);
  return { trap: withOperand(STATUS.TDX_SERVTD_NOT_BOUND, slot) };
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
  const walk = module.pamt.walk(hpa, { mode: 'shared', guest: true });
  if (walk === undefined) return refuse(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR);
  if (typeof walk === 'bigint') return refuse(walk);
  held.add(walk);
  const isTdr = walk.level === LEVEL_4K && walk.entry.type === PAGE_TYPE.TDR;
  return isTdr ? new TrustDomain(module, hpa) : refuse(STATUS.TDX_PAGE_METADATA_INCORRECT);
}

function enterTarget(held: Held, target: TrustDomain, leaf: number): bigint {
  const built = checkBuildState(target);
  if (built !== STATUS.TDX_SUCCESS) return built;
  const locked = lockField(held, target.tdcs, TDCS.OP_STATE_LOCK);
  if (locked !== STATUS.TDX_SUCCESS) return withOperand(locked, OPERAND.OP_STATE);
  const state = target.tdcs.u32(TDCS.OP_STATE);
  return isGuestLeafAllowed(leaf, state)
    ? STATUS.TDX_SUCCESS
    : withOperand(STATUS.TDX_OP_STATE_INCORRECT, state);
}

function lockField(held: Held, tdcs: ControlStructure, offset: number): bigint {
  const status = tdcs.tryLock(offset, 'shared', true);
  if (status === STATUS.TDX_SUCCESS) held.add({ release: () => tdcs.unlock(offset, 'shared') });
  return status;
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
