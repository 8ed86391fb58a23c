/** TDG.VP.RD: one field of the vCPU itself. In: RCX 0, RDX field id. Out: R8 value, RDX next id. */
import { NO_FIELD } from '../../../abi/global-fields.ts';
import { OPERAND } from '../../../abi/operands.ts';
import { R8, RCX, RDX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { answerRead } from '../../td/metadata.ts';
import { vcpuMetadata } from '../../td/vcpu-metadata.ts';
import type { GuestLeaf } from '../guest-leaf.ts';
import { updateVcpuStateDetails } from '../vcpu-state-details.ts';

/** @internal */
export const vpRd: GuestLeaf = (vcpu) => {
  const { module, td, tdvps, lp, regs } = vcpu;
  const { q } = regs;
  const requested = q[RDX]!;
  q[RDX] = NO_FIELD;
  q[R8] = 0n;
  if (q[RCX] !== 0n) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const refreshDetails = (): void => void updateVcpuStateDetails(vcpu);
  const space = vcpuMetadata({ module, td, tdvps, lp, access: 'guest', refreshDetails });
  return answerRead(regs, space, requested, 'guest', true);
};
