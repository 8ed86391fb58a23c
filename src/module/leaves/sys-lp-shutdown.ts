/** TDH.SYS.LP.SHUTDOWN: ends release 1.0 on all LPs; later releases keep the leaf for old kernels and do nothing. */
import { STATUS } from '../../abi/status-codes.ts';
import type { Leaf } from '../leaf.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const sysLpShutdown: Leaf = { handler: run, beforeReady: true };

function run(module: TdxModule): bigint {
  if (!module.release.lpShutdownEndsModule) return STATUS.TDX_SUCCESS;
  if (!module.globalLock.tryShared()) return STATUS.TDX_SYS_BUSY;
  module.sysState = 'SYS_SHUTDOWN';
  module.globalLock.releaseShared();
  return STATUS.TDX_SUCCESS;
}
