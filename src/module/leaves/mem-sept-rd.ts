/**
 * TDH.MEM.SEPT.RD: reads a secure EPT entry (module facts 7).
 * In: RCX guest address and level, RDX TD, bit 0 asks for the attributes of L2 entries. Out: RCX the entry, RDX its
 * level and state, R8 the attributes.
 */
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { R8 } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { ATTRIBUTES, hasAny } from '../td/features.ts';
import type { LocatedEntry } from '../td/gpa.ts';
import { type Held, locking } from '../td/held.ts';
import { l2Attributes } from '../td/l2-blocking.ts';
import { aliases } from '../td/l2-sept.ts';
import { TDCS } from '../td/layout.ts';
import { type EntryKind, enterPageLeaf, openEntry } from '../td/page-leaf.ts';
import { putSeptDetails, SEPT_LEVEL } from '../td/sept.ts';
import { SEPT_STATE, septState } from '../td/sept-entry.ts';
import type { TrustDomain } from '../td/trust-domain.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const memSeptRd: Leaf = { handler: locking(run) };

const READ_L2_ATTRIBUTES = 1;
const ANY_ENTRY: EntryKind = { minLevel: SEPT_LEVEL.PT_4K, tree: 'shared' };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const call = enterPageLeaf(module, held, regs, TDH.memSeptRd, READ_L2_ATTRIBUTES);
  if (typeof call === 'bigint') return call;
  const { td } = call;
  const withAttributes = call.flags !== 0;
  if (withAttributes && !hasAny(td.tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.DEBUG)) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  }
  const located = openEntry(held, regs, call, ANY_ENTRY);
  if (typeof located === 'bigint') return located;

  if (withAttributes) regs.q[R8] = attributes(td, located);
  putSeptDetails(regs, located.ept, located);
  return STATUS.TDX_SUCCESS;
}

/** Attributes of each L2 VM's entry, 16 bits each by VM; those of VM 0 are none. */
function attributes(td: TrustDomain, located: LocatedEntry): bigint {
  if (septState(located.entry) === SEPT_STATE.FREE) return 0n;
  let all = 0n;
  for (const { vm, entry } of aliases(td, located)) {
    all |= BigInt(l2Attributes(entry, located.entry)) << BigInt(16 * vm);
  }
  return all;
}
