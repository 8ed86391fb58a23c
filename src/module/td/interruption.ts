import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { HP_HOST_PRIORITY } from '../locks.ts';
import { isEventPending } from '../pending-events.ts';
import { TDCS } from './layout.ts';
import type { TrustDomain } from './trust-domain.ts';

/**
 * What a long leaf asks between two steps: TDX_SUCCESS to go on, `interrupted` when an event waits for the host, or
 * TDX_INTERRUPTED_BUSY when another host leaf wants the TD's secure EPT tree.
 * @public
 */
export function checkInterruption(lp: LogicalProcessor, td: TrustDomain, interrupted: bigint): bigint {
  if (isEventPending(lp)) return interrupted;
  const claimed = (td.tdcs.u16(TDCS.SEPT_TREE_LOCK) & HP_HOST_PRIORITY) !== 0;
  return claimed ? STATUS.TDX_INTERRUPTED_BUSY : STATUS.TDX_SUCCESS;
}
