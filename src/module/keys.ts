/** PCONFIG as leaves use it. */
import { OPERAND } from '../abi/operands.ts';
import { withOperand } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import type { PconfigOutcome } from '../machine/package.ts';

const OUTCOMES: Readonly<Record<PconfigOutcome, bigint>> = {
  ok: STATUS.TDX_SUCCESS,
  'device-busy': withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.KET),
  'entropy-error': STATUS.TDX_KEY_GENERATION_FAILED,
};

/** Gives `keyId` a fresh random key on the package of `lp`: TDX_SUCCESS, OPERAND_BUSY(KET) or KEY_GENERATION_FAILED. @internal */
export function programKey(lp: LogicalProcessor, keyId: number): bigint {
  return OUTCOMES[lp.package.pconfig(keyId)];
}
