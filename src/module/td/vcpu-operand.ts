/** A vCPU as the operand of VP.RD and VP.WR (module facts 2, 5). */
import { TDH } from '../../abi/leaves.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { RCX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { TdxModule } from '../tdx-module.ts';
import { ATTRIBUTES, hasAny } from './features.ts';
import type { Held } from './held.ts';
import { TDCS, TDVPS, VCPU_STATE } from './layout.ts';
import { enterOpState, lockImplicitTdr, lockPage } from './operands.ts';
import { associateVcpu } from './vcpu.ts';
import type { VcpuContext } from './vcpu-metadata.ts';

/** Locks the vCPU whose TDVPR is in RCX and associates it with `lp`. A disabled one can still be read. @internal */
export function openVcpu(
  module: TdxModule,
  lp: LogicalProcessor,
  held: Held,
  leaf: typeof TDH.vpRd | typeof TDH.vpWr,
): VcpuContext | bigint {
  const root = lockPage(module, held, lp.regs, RCX, 'shared', PAGE_TYPE.TDVPR);
  if (typeof root === 'bigint') return root;
  const td = lockImplicitTdr(module, held, root.walk.entry.owner, 'shared');
  if (typeof td === 'bigint') return td;
  const entered = enterOpState(held, td, leaf, 'shared');
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const tdvps = td.tdvps(root.address);
  if (tdvps === undefined) return STATUS.TDX_TDCX_NUM_INCORRECT;
  const state = tdvps.u8(TDVPS.VCPU_STATE);
  const isReadable = state === VCPU_STATE.DISABLED && leaf === TDH.vpRd;
  if (state !== VCPU_STATE.READY && !isReadable) return withOperand(STATUS.TDX_VCPU_STATE_INCORRECT, state);
  if (associateVcpu(td, tdvps, lp) === undefined) return STATUS.TDX_VCPU_ASSOCIATED;
  const debug = hasAny(td.tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.DEBUG);
  return { module, td, tdvps, lp, access: debug ? 'debug' : 'host' };
}
