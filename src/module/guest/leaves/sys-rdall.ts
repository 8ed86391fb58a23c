/** TDG.SYS.RDALL: global metadata as a list. In: RDX GPA of a 4 KiB buffer, R8 first field id. Out: R8 next id. */
import { PAGE_4K } from '../../../abi/address.ts';
import { NO_FIELD } from '../../../abi/global-fields.ts';
import { OPERAND } from '../../../abi/operands.ts';
import { R8, RDX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { listGlobalFields } from '../../global-metadata.ts';
import { gpaFrom } from '../../td/gpa.ts';
import { accessGpa } from '../gpa-access.ts';
import type { GuestLeaf } from '../guest-leaf.ts';

const CONTEXT = 0x0070_0000_0000_0000n;

/** @internal */
export const sysRdall: GuestLeaf = (vcpu) => {
  const { regs, module } = vcpu;
  const start = regs.q[R8]! & ~CONTEXT;
  regs.q[R8] = NO_FIELD;
  if (regs.d[2 * RDX]! % PAGE_4K !== 0) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  const buffer = accessGpa(vcpu, gpaFrom(regs, RDX), 'write', true);
  if (typeof buffer === 'bigint') return withOperand(buffer, OPERAND.RDX);
  if (typeof buffer === 'string') return buffer;
  const list = listGlobalFields(module, start, PAGE_4K, true);
  module.machine.memory.write(buffer.address, list.bytes, buffer.keyId);
  regs.q[R8] = list.next;
  return list.status;
};
