/** TDG.VP.VEINFO.GET: hands out what the last #VE was about, once. */
import { TDG } from '../../../abi/leaves.ts';
import { OPERAND } from '../../../abi/operands.ts';
import { R8, R9, R10, R11, R12, RCX, RDX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { TDVPS } from '../../td/layout.ts';
import type { GuestLeaf } from '../guest-leaf.ts';

/** Version 1 adds the category, version 2 the interruptibility state. @internal */
export const vpVeinfoGet: GuestLeaf = ({ module, regs: { q }, tdvps }, version) => {
  for (const register of [RCX, RDX, R8, R9, R10]) q[register] = 0n;
  if (version > module.release.guestLeaves.get(TDG.vpVeinfoGet)!)
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
  if (tdvps.u32(TDVPS.VE_VALID) === 0) return STATUS.TDX_NO_VALID_VE_INFO;
  const category = version > 0 ? BigInt(tdvps.u8(TDVPS.VE_CATEGORY)) : 0n;
  q[RCX] = BigInt(tdvps.u32(TDVPS.VE_EXIT_REASON)) | (category << 32n);
  q[RDX] = tdvps.u64(TDVPS.VE_EXIT_QUALIFICATION);
  q[R8] = tdvps.u64(TDVPS.VE_GLA);
  q[R9] = tdvps.u64(TDVPS.VE_GPA);
  // Length in bits 31:0, information in bits 63:32: the fields lie side by side.
  q[R10] = tdvps.u64(TDVPS.VE_INSTRUCTION_LENGTH);
  if (version >= 2) {
    q[R11] = 0n;
    q[R12] = BigInt(tdvps.u32(TDVPS.VE_INTERRUPTIBILITY));
  }
  tdvps.setU32(TDVPS.VE_VALID, 0);
  return STATUS.TDX_SUCCESS;
};
