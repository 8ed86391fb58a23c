/** TDH.MEM.PAGE.ADD: copies a page of the host into a TD under construction and measures its address (module facts 7, 8). */
import { PAGE_4K, pfnOf } from '../../abi/address.ts';
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { R8, R9, RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { sharedBufferIn } from '../shared-buffer.ts';
import { gpaOperand, locateEntry } from '../td/gpa.ts';
import { type Held, locking } from '../td/held.ts';
import { isMeasurementCompatible, runningMeasurement } from '../td/measurement.ts';
import { enterOpState, givePage, lockPage, lockTdr } from '../td/operands.ts';
import { putSeptDetails, SEPT_LEVEL } from '../td/sept.ts';
import { isSeptStateAllowed, SEPT_RWX_XU, SEPT_STATE, septEntry } from '../td/sept-entry.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memPageAdd: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const low = regs.d[2 * RCX]!;
  const high = regs.d[2 * RCX + 1]!;
  const td = lockTdr(module, held, regs, RDX, 'exclusive');
  regs.q[RCX] = 0n;
  regs.q[RDX] = 0n;
  if (typeof td === 'bigint') return td;
  const entered = enterOpState(held, td, TDH.memPageAdd);
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const operand = gpaOperand(low, high, SEPT_LEVEL.PT_4K, SEPT_LEVEL.PT_4K);
  if (operand === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const located = locateEntry(held, td, regs, operand);
  if (typeof located === 'bigint') return located;
  const { ept, at } = located;
  if (!isSeptStateAllowed(TDH.memPageAdd, located.entry)) {
    putSeptDetails(regs, ept, located);
    return withOperand(STATUS.TDX_EPT_ENTRY_STATE_INCORRECT, OPERAND.RCX);
  }
  const source = sharedBufferIn(module.platform!, regs, R9, PAGE_4K);
  if (source === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R9);
  const page = lockPage(module, held, regs, R8, 'exclusive', PAGE_TYPE.NDA);
  if (typeof page === 'bigint') return page;
  if (!isMeasurementCompatible(module, td)) return STATUS.TDX_INCOMPATIBLE_MRTD_CONTEXT;

  module.machine.memory.copyPage(source.address, source.keyId, page.address, td.keyId);
  ept.write(at, septEntry(SEPT_STATE.MAPPED, SEPT_RWX_XU, ept.withKeyId(pfnOf(page.address))));
  runningMeasurement(module, td).addPage(operand.gpa);
  td.addChildren(1);
  givePage(page, PAGE_TYPE.REG, td.address);
  page.walk.entry.bepoch = 0n;
  return STATUS.TDX_SUCCESS;
}
