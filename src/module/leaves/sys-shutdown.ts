/**
 * TDH.SYS.SHUTDOWN: ends the module and leaves hand-off data for its successor. In: RCX format version of the data
 * (15:0), AVOID_COMPAT_SENSITIVE (16).
 */
import { hasFeature } from '../../abi/features.ts';
import { OPERAND } from '../../abi/operands.ts';
import { RCX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { writeHandoff } from '../handoff.ts';
import type { Leaf } from '../leaf.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const sysShutdown: Leaf = { handler: run };

const HV_MASK = 0xffffn;
const AVOID_COMPAT_SENSITIVE = 1n << 16n;
/** Detail bit 0: the count in bits 31:16 is of interrupted migrations rather than of TDs being built. */
const MIGRATIONS = 1;

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  const request = lp.regs.q[RCX]!;
  const { moduleHv, minUpdateHv, noDowngrade } = module.platform!.handoff;
  const known = hasFeature(module.release.features0, 'UPDATE_COMPATIBILITY')
    ? HV_MASK | AVOID_COMPAT_SENSITIVE
    : HV_MASK;
  const hv = Number(request & HV_MASK);
  const supported = minUpdateHv <= hv && hv <= moduleHv && (!noDowngrade || hv === moduleHv);
  if (!supported || (request & ~known) !== 0n) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  if (!module.globalLock.tryExclusive()) return STATUS.TDX_SYS_BUSY;
  try {
    if (module.lpsInTd > 0) return STATUS.TDX_SYS_BUSY;
    const sensitive = (request & AVOID_COMPAT_SENSITIVE) !== 0n ? compatibilityConflict(module) : undefined;
    if (sensitive !== undefined) return withOperand(STATUS.TDX_UPDATE_COMPATIBILITY_SENSITIVE, sensitive);
    module.machine.seam.handoffData = writeHandoff(module, hv);
    module.sysState = 'SYS_SHUTDOWN';
    return STATUS.TDX_SUCCESS;
  } finally {
    module.globalLock.releaseExclusive();
  }
}

/** Status detail of what an update would break, or undefined. */
function compatibilityConflict({ tdBuildCount, migrationInterruptedCount }: TdxModule): number | undefined {
  if (tdBuildCount > 0) return tdBuildCount * 0x1_0000;
  return migrationInterruptedCount > 0 ? migrationInterruptedCount * 0x1_0000 + MIGRATIONS : undefined;
}
