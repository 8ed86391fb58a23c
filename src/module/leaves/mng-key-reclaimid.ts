/** TDH.MNG.KEY.RECLAIMID: kept for callers of the first releases; does nothing. */
import { STATUS } from '../../abi/status-codes.ts';
import type { Leaf } from '../leaf.ts';

/** @internal */
export const mngKeyReclaimid: Leaf = { handler: () => STATUS.TDX_SUCCESS };
