/** TDG.SYS.RD: one element of global metadata. In: RDX field id. Out: RDX next id, R8 value. */
import { RDX } from '../../../abi/registers.ts';
import { readGlobalElement } from '../../global-metadata.ts';
import type { GuestLeaf } from '../guest-leaf.ts';

/** Bits of a field id that name its context, in the high half: whatever they are, the platform is meant. */
const CONTEXT_HIGH = 0x0070_0000;

/** @internal */
export const sysRd: GuestLeaf = ({ module, regs }) => {
  regs.d[2 * RDX + 1]! &= ~CONTEXT_HIGH;
  return readGlobalElement(module, regs, true);
};
