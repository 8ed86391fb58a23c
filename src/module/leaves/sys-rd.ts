/** TDH.SYS.RD: one element of global metadata. In: RDX field id. Out: RDX next id, R8 value. */
import { R8, RDX } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { readGlobalElement } from '../global-metadata.ts';
import type { Leaf } from '../leaf.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const sysRd: Leaf = { handler: run, beforeReady: true };

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  if (module.lps[lp.index] === undefined) {
    const { d } = lp.regs;
    d.fill(0xffff_ffff, 2 * RDX, 2 * RDX + 2);
    d.fill(0, 2 * R8, 2 * R8 + 2);
    return STATUS.TDX_SYS_LP_INIT_NOT_DONE;
  }
  return readGlobalElement(module, lp.regs);
}
