/** TDG.VP.INFO: what a TD may know of itself. */
import { R8, R9, R10, R11, RCX, RDX } from '../../../abi/registers.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { gpaWidth } from '../../td/gpa.ts';
import { TDCS, TDVPS } from '../../td/layout.ts';
import type { GuestLeaf } from '../guest-leaf.ts';

/** R10 bit 0: TDG.SYS.RD is there. */
const SYS_RD_AVAILABLE = 1n;

/** @internal */
export const vpInfo: GuestLeaf = ({ regs: { q }, tdcs, tdvps }) => {
  q[RCX] = BigInt(gpaWidth(tdcs));
  q[RDX] = tdcs.u64(TDCS.ATTRIBUTES);
  q[R8] = (BigInt(tdcs.u32(TDCS.MAX_VCPUS)) << 32n) | BigInt(tdcs.u32(TDCS.NUM_VCPUS));
  q[R9] = BigInt(tdvps.u32(TDVPS.VCPU_INDEX));
  q[R10] = SYS_RD_AVAILABLE;
  q[R11] = 0n;
  return STATUS.TDX_SUCCESS;
};
