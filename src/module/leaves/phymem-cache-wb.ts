/**
 * TDH.PHYMEM.CACHE.WB: writes back the caches of the caller's package, after which KeyIDs flushed before are done
 * there. In: RCX 0 to start, 1 to resume after an interruption.
 */
import { OPERAND } from '../../abi/operands.ts';
import { RCX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { HKID_STATE, type WriteBackEntry } from '../kot.ts';
import type { Leaf } from '../leaf.ts';
import { isEventPending } from '../pending-events.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const phymemCacheWb: Leaf = { handler: run };

const START = 0n;
const RESUME = 1n;

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  const command = lp.regs.q[RCX]!;
  if (command > RESUME) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const packageId = module.packageOf(lp);
  const entry = module.writeBack[packageId]!;
  if (!entry.lock.tryLock()) return withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.WBCACHE);
  try {
    if (!module.kot.lock.tryShared()) return withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.KOT);
    try {
      return writeBack(module, lp, entry, packageId, command === START);
    } finally {
      module.kot.lock.releaseShared();
    }
  } finally {
    entry.lock.release();
  }
}

function writeBack(
  module: TdxModule,
  lp: LogicalProcessor,
  entry: WriteBackEntry,
  packageId: number,
  isStart: boolean,
): bigint {
  const { kot } = module;
  const { privateHkidMin, privateHkidMax, cacheSubBlocks } = module.platform!;
  if (isStart) {
    entry.interruptedAt = 0;
    if (!snapshotFlushed(module, entry)) return STATUS.TDX_NO_HKID_READY_TO_WBCACHE;
  } else if (entry.interruptedAt === 0) return STATUS.TDX_WBCACHE_RESUME_ERROR;
  for (let subBlock = entry.interruptedAt + 1; subBlock < cacheSubBlocks; subBlock++) {
    if (!isEventPending(lp)) continue;
    entry.interruptedAt = subBlock;
    return STATUS.TDX_INTERRUPTED_RESUMABLE;
  }
  lp.wbinvd();
  entry.interruptedAt = 0;
  for (let keyId = privateHkidMin; keyId <= privateHkidMax; keyId++) {
    if (entry.flushed[keyId] === 1) kot.pendingPackages[keyId]! &= ~(1 << packageId);
  }
  return STATUS.TDX_SUCCESS;
}

/** Remembers the KeyIDs that are flushed now; false, and nothing remembered, when there is none. */
function snapshotFlushed({ kot, platform }: TdxModule, entry: WriteBackEntry): boolean {
  const { privateHkidMin, privateHkidMax } = platform!;
  const states = kot.states.subarray(privateHkidMin, privateHkidMax + 1);
  if (!states.includes(HKID_STATE.FLUSHED)) return false;
  states.forEach((state, i) => {
    entry.flushed[privateHkidMin + i] = state === HKID_STATE.FLUSHED ? 1 : 0;
  });
  return true;
}
