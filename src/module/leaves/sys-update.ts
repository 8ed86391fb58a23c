/**
 * TDH.SYS.UPDATE: takes over from the module before, instead of SYS.CONFIG, KEY.CONFIG and TDMR.INIT.
 * In, version 1: R9 features that TDs may count on, R10 zero.
 */
import { OPERAND } from '../../abi/operands.ts';
import { R9, R10 } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { enabledFeatures } from '../global-values.ts';
import { invalidateHandoff, readHandoffHeader, restoreHandoff } from '../handoff.ts';
import type { Leaf } from '../leaf.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const sysUpdate: Leaf = { handler: run, beforeReady: true };

const LAST_VERSION = 1;
const UPDATE_COMPATIBILITY = 1n << 47n;

function run(module: TdxModule, lp: LogicalProcessor, version: number): bigint {
  if (!module.globalLock.tryExclusive()) return STATUS.TDX_SYS_BUSY;
  try {
    return update(module, lp, version);
  } finally {
    module.globalLock.releaseExclusive();
  }
}

function update(module: TdxModule, lp: LogicalProcessor, version: number): bigint {
  const { q } = lp.regs;
  if (module.sysState !== 'SYSINIT_DONE' || !module.allLpsInitialised) return STATUS.TDX_SYS_STATE_INCORRECT;
  const region = module.machine.seam.handoffData;
  const { valid, hv } = readHandoffHeader(region);
  const { moduleHv, minUpdateHv } = module.platform!.handoff;
  if (!valid || hv < minUpdateHv || hv > moduleHv) return STATUS.TDX_SYS_INVALID_HANDOFF;
  restoreHandoff(module, region, hv);
  if (version > LAST_VERSION) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
  if (version === LAST_VERSION) {
    if ((q[R9]! & ~enabledFeatures(module)) !== 0n)
      return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R9);
    if (q[R10] !== 0n) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R10);
    module.updateCompatibility = (q[R9]! & UPDATE_COMPATIBILITY) !== 0n;
  }
  invalidateHandoff(region);
  module.sysState = 'SYS_READY';
  return STATUS.TDX_SUCCESS;
}
