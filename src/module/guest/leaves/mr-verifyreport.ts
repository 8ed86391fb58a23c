/** TDG.MR.VERIFYREPORT: checks that a report was made on this machine (module facts 9). In: RCX GPA of a REPORTMACSTRUCT. */
import { OPERAND } from '../../../abi/operands.ts';
import { RCX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { REPORT_MAC_STRUCT_BYTES, type ReportVerdict } from '../../../machine/seam-reports.ts';
import { canVerifyReports } from '../../global-values.ts';
import { gpaFrom } from '../../td/gpa.ts';
import { accessGpa } from '../gpa-access.ts';
import type { GuestLeaf } from '../guest-leaf.ts';

const STATUSES: Readonly<Record<ReportVerdict, bigint>> = {
  accepted: STATUS.TDX_SUCCESS,
  'invalid-cpusvn': STATUS.TDX_INVALID_CPUSVN,
  'invalid-report': STATUS.TDX_INVALID_REPORTMACSTRUCT,
};

/** @internal */
export const mrVerifyreport: GuestLeaf = (vcpu) => {
  const { regs, module } = vcpu;
  const { memory, seam } = module.machine;
  if (!canVerifyReports(module.platform!)) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
  if (regs.d[2 * RCX]! % REPORT_MAC_STRUCT_BYTES !== 0) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  }
  const source = accessGpa(vcpu, gpaFrom(regs, RCX), 'read', true);
  if (typeof source === 'bigint') return withOperand(source, OPERAND.RCX);
  if (typeof source === 'string') return source;
  return STATUSES[seam.reports.verify(memory.read(source.address, REPORT_MAC_STRUCT_BYTES, source.keyId))];
};
