/**
 * TDH.PHYMEM.PAGE.RDMD: metadata of the page at RCX (with dynamic PAMT: level in bits 2:0).
 * Out: RCX type, RDX owner, R8 level, R9 BEPOCH, R10 and R11 the pages that hold the metadata of a 2 MiB range.
 */
import { PAGE_4K } from '../../abi/address.ts';
import { OPERAND } from '../../abi/operands.ts';
import { LEVEL_1G, LEVEL_4K, PAGE_TYPE, type PageLevel } from '../../abi/page-types.ts';
import { R8, R9, R10, R11, RCX, RDX, type Registers, setRegNumber } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import type { PamtWalk } from '../pamt-walk.ts';
import { plainHpa } from '../td/operands.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const phymemPageRdmd: Leaf = { handler: run };

const LEVEL_MASK = 0x7;
/** RCX bit 63: the entry is not that of a page but leads to the entries of smaller pages. */
const NON_LEAF = 1n << 63n;

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  const { regs } = lp;
  const [low, high] = [regs.d[2 * RCX]!, regs.d[2 * RCX + 1]!];
  for (const output of [RCX, RDX, R8, R9, R10, R11]) setRegNumber(regs, output, 0);
  const invalid = withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const level = low & LEVEL_MASK;
  if (level > LEVEL_1G || (level > LEVEL_4K && !module.pamt.dynamic)) return invalid;
  const address = plainHpa(module.platform!, low - level, high, PAGE_4K * 512 ** level);
  if (address === undefined) return invalid;
  const walk = module.pamt.walk(address, 'shared', level as PageLevel);
  if (walk === undefined) return withOperand(STATUS.TDX_OPERAND_ADDR_RANGE_ERROR, OPERAND.RCX);
  if (typeof walk === 'bigint') return withOperand(walk, OPERAND.RCX);
  report(regs, walk, address, level === LEVEL_4K);
  walk.release();
  return STATUS.TDX_SUCCESS;
}

function report(regs: Registers, { entry, level, block }: PamtWalk, address: number, asked4k: boolean): void {
  const { q } = regs;
  if (asked4k && entry.type === PAGE_TYPE.NDA && block.isLent(address)) {
    q[RCX] = BigInt(PAGE_TYPE.PAMT);
    return;
  }
  q[RCX] = BigInt(entry.type);
  setRegNumber(regs, R8, level);
  if (entry.type === PAGE_TYPE.PAMT) {
    const [first, second] = entry.pagePair;
    q[RCX] = BigInt(entry.type) | NON_LEAF;
    setRegNumber(regs, R10, first);
    setRegNumber(regs, R11, second);
    return;
  }
  setRegNumber(regs, RDX, entry.owner);
  if (entry.type === PAGE_TYPE.REG || entry.type === PAGE_TYPE.EPT) q[R9] = entry.bepoch;
}
