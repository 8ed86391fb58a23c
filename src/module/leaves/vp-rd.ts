/** TDH.VP.RD: one field of a vCPU. In: RCX TDVPR, RDX field id. Out: R8 value; version 1: RDX next id. */

import { NO_FIELD } from '../../abi/global-fields.ts';
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { R8, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { answerRead } from '../td/metadata.ts';
import { vcpuMetadata } from '../td/vcpu-metadata.ts';
import { openVcpu } from '../td/vcpu-operand.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const vpRd: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held, version: number): bigint {
  const { regs } = lp;
  const requested = regs.q[RDX]!;
  if (version > 0) regs.q[RDX] = NO_FIELD;
  regs.q[R8] = 0n;
  if (version > 1) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
  const vcpu = openVcpu(module, lp, held, TDH.vpRd);
  if (typeof vcpu === 'bigint') return vcpu;
  return answerRead(regs, vcpuMetadata(vcpu), requested, vcpu.access, version > 0);
}
