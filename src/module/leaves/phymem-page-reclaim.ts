/**
 * TDH.PHYMEM.PAGE.RECLAIM: gives a page of a TD that has ended back to the host. In: RCX page. Out: RCX type, RDX
 * owner, R8 level, R9 bit 62 with dynamic PAMT: its 2 MiB range has no page in use any more.
 */
import { OPERAND } from '../../abi/operands.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { R8, R9, R10, R11, RCX, RDX, setRegNumber } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import type { PamtWalk } from '../pamt-walk.ts';
import { type Held, locking } from '../td/held.ts';
import { LIFECYCLE, TDR } from '../td/layout.ts';
import { lockImplicitTdr, pageIsMultipleOf, plainHpa, takePage } from '../td/operands.ts';
import { TrustDomain } from '../td/trust-domain.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const phymemPageReclaim: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const address = plainHpa(module.platform!, regs.d[2 * RCX]!, regs.d[2 * RCX + 1]!);
  for (const output of [RCX, RDX, R8, R9, R10, R11]) regs.q[output] = 0n;
  if (address === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const walk = module.pamt.walk(address, 'exclusive');
  if (walk === undefined) return withOperand(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR, OPERAND.RCX);
  if (typeof walk === 'bigint') return withOperand(walk, OPERAND.RCX);
  held.add(walk);
  const { type, owner } = walk.entry;
  if (type === PAGE_TYPE.NDA || type === PAGE_TYPE.RSVD) {
    return withOperand(STATUS.TDX_PAGE_METADATA_INCORRECT, OPERAND.RCX);
  }
  setRegNumber(regs, RCX, type);
  setRegNumber(regs, RDX, owner);
  setRegNumber(regs, R8, walk.level);
  if (!pageIsMultipleOf(address, walk.level)) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const status = type === PAGE_TYPE.TDR ? checkTdr(module, address) : leaveTd(module, held, walk);
  if (status !== STATUS.TDX_SUCCESS) return status;

  regs.q[R9] = takePage(walk);
  return STATUS.TDX_SUCCESS;
}

/** The TDR itself goes last. */
function checkTdr(module: TdxModule, address: number): bigint {
  const { tdr } = new TrustDomain(module, address);
  if (tdr.u32(TDR.LIFECYCLE_STATE) !== LIFECYCLE.TEARDOWN) return STATUS.TDX_LIFECYCLE_STATE_INCORRECT;
  return tdr.u64(TDR.CHLDCNT) === 0n ? STATUS.TDX_SUCCESS : STATUS.TDX_TD_ASSOCIATED_PAGES_EXIST;
}

function leaveTd(module: TdxModule, held: Held, walk: PamtWalk): bigint {
  const td = lockImplicitTdr(module, held, walk.entry.owner, 'shared');
  if (typeof td === 'bigint') return td;
  if (td.tdr.u32(TDR.LIFECYCLE_STATE) !== LIFECYCLE.TEARDOWN) return STATUS.TDX_LIFECYCLE_STATE_INCORRECT;
  td.addChildren(-(512 ** walk.level));
  return STATUS.TDX_SUCCESS;
}
