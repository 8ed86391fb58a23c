/** TDG.MR.RTMR.EXTEND: extends a runtime measurement register. In: RCX GPA of 48 bytes, RDX register. */
import { MEASUREMENT_BYTES } from '../../../abi/measurement.ts';
import { OPERAND } from '../../../abi/operands.ts';
import { RCX, RDX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { gpaFrom } from '../../td/gpa.ts';
import { TDCS } from '../../td/layout.ts';
import { sha384 } from '../../td/measurement.ts';
import { accessGpa } from '../gpa-access.ts';
import type { GuestLeaf } from '../guest-leaf.ts';

const ALIGN = 64;
const REGISTERS = 4;

/** @internal */
export const mrRtmrExtend: GuestLeaf = (vcpu) => {
  const { regs, tdcs, module } = vcpu;
  if (regs.d[2 * RCX]! % ALIGN !== 0) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const data = accessGpa(vcpu, gpaFrom(regs, RCX), 'read', true);
  if (typeof data === 'bigint') return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  if (typeof data === 'string') return data;
  const index = regs.d[2 * RDX]!;
  if (index >= REGISTERS || regs.d[2 * RDX + 1] !== 0) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  }
  const locked = tdcs.tryLock(TDCS.RTMR_LOCK, 'exclusive', true);
  if (locked !== STATUS.TDX_SUCCESS) return withOperand(locked, OPERAND.RTMR);
  const at = TDCS.RTMR + MEASUREMENT_BYTES * index;
  const extension = module.machine.memory.read(data.address, MEASUREMENT_BYTES, data.keyId);
  tdcs.setBytes(at, sha384(tdcs.bytes(at, MEASUREMENT_BYTES), extension));
  tdcs.setFlag(TDCS.LAST_TEEINFO_HASH_VALID, false);
  tdcs.unlock(TDCS.RTMR_LOCK, 'exclusive');
  return STATUS.TDX_SUCCESS;
};
