/**
 * TDH.SYS.DISABLE: ends the module for good and gives all memory under private KeyIDs back to the host, with lines
 * that anybody may read, so that another kernel can take over (Linux host rules 1.6). Nothing of it is published but
 * its number and its statuses; docs/fidelity.md says what is assumed here.
 */
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { isEventPending } from '../pending-events.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const sysDisable: Leaf = { handler: run, beforeReady: true };

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  if (!module.globalLock.tryExclusive()) return STATUS.TDX_SYS_BUSY;
  try {
    if (module.lpsInTd > 0) return STATUS.TDX_SYS_BUSY;
    if (isEventPending(lp)) return STATUS.TDX_INTERRUPTED_RESUMABLE;
    const { machine } = module;
    machine.memory.disown((keyId) => machine.isPrivateKeyId(keyId));
    module.sysState = 'SYS_SHUTDOWN';
    return STATUS.TDX_SUCCESS;
  } finally {
    module.globalLock.releaseExclusive();
  }
}
