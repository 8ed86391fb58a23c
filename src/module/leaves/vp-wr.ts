/** TDH.VP.WR: writes one field of a vCPU. In: RCX TDVPR, RDX field id, R8 value, R9 bits to write. Out: R8 old value. */
import { TDH } from '../../abi/leaves.ts';
import { R8, R9, RDX } from '../../abi/registers.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { answerWrite } from '../td/metadata.ts';
import { vcpuMetadata } from '../td/vcpu-metadata.ts';
import { openVcpu } from '../td/vcpu-operand.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const vpWr: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const value = regs.q[R8]!;
  regs.q[R8] = 0n;
  const vcpu = openVcpu(module, lp, held, TDH.vpWr);
  if (typeof vcpu === 'bigint') return vcpu;
  return answerWrite(regs, vcpuMetadata(vcpu), regs.q[RDX]!, vcpu.access, value, regs.q[R9]!);
}
