/**
 * TDH.SYS.DISABLE: gives all memory under private KeyIDs back to the host, with lines that anybody may read, and leaves
 * the module as it was loaded, so that another kernel can initialise it from scratch (Linux host rules 1.6, 1.9).
 * Nothing of it is published but its number and its statuses; docs/fidelity.md says what is assumed here.
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
    machine.seam.module = module.asLoaded();
    return STATUS.TDX_SUCCESS;
  } finally {
    module.globalLock.releaseExclusive();
  }
}
