/** TDH.MNG.KEY.CONFIG: programs the TD's key on the package it is called on (module facts 5). */
import { RCX } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { programKey } from '../keys.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { LIFECYCLE, TDR } from '../td/layout.ts';
import { lockTdr } from '../td/operands.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const mngKeyConfig: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const td = lockTdr(module, held, lp.regs, RCX, 'exclusive');
  if (typeof td === 'bigint') return td;
  const { tdr } = td;
  if (tdr.flag(TDR.FATAL)) return STATUS.TDX_TD_FATAL;
  if (tdr.u32(TDR.LIFECYCLE_STATE) !== LIFECYCLE.HKID_ASSIGNED) return STATUS.TDX_LIFECYCLE_STATE_INCORRECT;
  const packageBit = 1 << module.packageOf(lp);
  const configured = tdr.n64(TDR.PKG_CONFIG_BITMAP);
  if ((configured & packageBit) !== 0) return STATUS.TDX_KEY_CONFIGURED;
  const status = programKey(lp, td.keyId);
  if (status !== STATUS.TDX_SUCCESS) return status;

  const now = configured | packageBit;
  tdr.setN64(TDR.PKG_CONFIG_BITMAP, now);
  if (now === module.configuredPackages) tdr.setU32(TDR.LIFECYCLE_STATE, LIFECYCLE.KEYS_CONFIGURED);
  return STATUS.TDX_SUCCESS;
}
