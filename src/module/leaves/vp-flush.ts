/** TDH.VP.FLUSH: takes a vCPU off the logical processor it is associated with (module facts 5). */
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { RCX } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { LIFECYCLE, TDR, TDVPS } from '../td/layout.ts';
import { lockImplicitTdr, lockPage } from '../td/operands.ts';
import { dissociateVcpu } from '../td/vcpu.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const vpFlush: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const root = lockPage(module, held, lp.regs, RCX, 'exclusive', PAGE_TYPE.TDVPR);
  if (typeof root === 'bigint') return root;
  const td = lockImplicitTdr(module, held, root.walk.entry.owner, 'shared');
  if (typeof td === 'bigint') return td;
  if (td.tdr.u32(TDR.LIFECYCLE_STATE) !== LIFECYCLE.KEYS_CONFIGURED) return STATUS.TDX_TD_KEYS_NOT_CONFIGURED;
  const tdvps = td.tdvps(root.address);
  if (tdvps === undefined) return STATUS.TDX_TDCX_NUM_INCORRECT;
  if (tdvps.u32(TDVPS.ASSOC_LPID) !== lp.apicId) return STATUS.TDX_VCPU_NOT_ASSOCIATED;

  dissociateVcpu(td, tdvps);
  return STATUS.TDX_SUCCESS;
}
