/** TDH.SYS.KEY.CONFIG: programs the key of the module's own KeyID on the package of the calling LP. */
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { programKey } from '../keys.ts';
import type { Leaf } from '../leaf.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const sysKeyConfig: Leaf = { handler: run, beforeReady: true };

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  if (!module.globalLock.tryExclusive()) return STATUS.TDX_SYS_BUSY;
  try {
    return configureKey(module, lp);
  } finally {
    module.globalLock.releaseExclusive();
  }
}

function configureKey(module: TdxModule, lp: LogicalProcessor): bigint {
  if (module.sysState !== 'SYSCONFIG_DONE') return STATUS.TDX_SYS_KEY_CONFIG_NOT_PENDING;
  const bit = 1 << module.packageOf(lp);
  if ((module.configuredPackages & bit) !== 0) return STATUS.TDX_KEY_CONFIGURED;
  const status = programKey(lp, module.globalKeyId);
  if (status !== STATUS.TDX_SUCCESS) return status;
  module.configuredPackages |= bit;
  if (countBits(module.configuredPackages) === module.platform!.packages) module.sysState = 'SYS_READY';
  return STATUS.TDX_SUCCESS;
}

function countBits(word: number): number {
  return word === 0 ? 0 : (word & 1) + countBits(word >>> 1);
}
