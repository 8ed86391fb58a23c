/**
 * TDG.MR.REPORT: a TDREPORT of the TD (module facts 8). In: RCX GPA for the report, RDX GPA of 64 bytes to put into it,
 * R8 subtype 0.
 */
import { OPERAND } from '../../../abi/operands.ts';
import { R8, RCX, RDX } from '../../../abi/registers.ts';
import { withOperand } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { isEventPending } from '../../pending-events.ts';
import { gpaFrom } from '../../td/gpa.ts';
import { TDCS } from '../../td/layout.ts';
import { readTdInfo } from '../../td/td-info.ts';
import { makeTdReport, REPORT_DATA_BYTES, TD_REPORT_BYTES } from '../../td/td-report.ts';
import { accessGpa } from '../gpa-access.ts';
import type { GuestLeaf } from '../guest-leaf.ts';

/** @internal */
export const mrReport: GuestLeaf = (vcpu) => {
  const { regs, tdcs, module, lp } = vcpu;
  const { memory, seam } = module.machine;
  if (regs.d[2 * RCX]! % TD_REPORT_BYTES !== 0) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  if (regs.d[2 * RDX]! % REPORT_DATA_BYTES !== 0) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  const source = accessGpa(vcpu, gpaFrom(regs, RDX), 'read', false);
  if (typeof source === 'bigint') return withOperand(source, OPERAND.RDX);
  if (typeof source === 'string') return source;
  if (regs.q[R8] !== 0n) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R8);
  const info = readTdInfo(tdcs, true);
  if (typeof info === 'bigint') return withOperand(info, OPERAND.RTMR);
  // The hash takes long enough that an event of the host may want to come in; the next call has it.
  if (!info.isHashKnown && isEventPending(lp)) return 'interrupted';
  const data = memory.read(source.address, REPORT_DATA_BYTES, source.keyId);
  const hasServiceTds = tdcs.u16(TDCS.SERVTD_NUM) > 0;
  const report = makeTdReport(module.release, seam.reports, { info, data, hasServiceTds });
  const target = accessGpa(vcpu, gpaFrom(regs, RCX), 'write', false);
  if (typeof target === 'bigint') return withOperand(target, OPERAND.RCX);
  if (typeof target === 'string') return target;
  memory.write(target.address, report, target.keyId);
  return STATUS.TDX_SUCCESS;
};
