/** The key that a TD's exports are encrypted with: random, drawn when the TDCS is complete and for each migration TD. */
import type { TdxModule } from '../tdx-module.ts';
import type { ControlStructure } from './control-structure.ts';
import { TDCS } from './layout.ts';
import { drawQwords } from './random.ts';

const KEY_QWORDS = 4;

/** Draws a new key for the TD; false when the CPU delivers no random numbers. @public */
export function drawMigrationKey(module: TdxModule, tdcs: ControlStructure): boolean {
  const key = drawQwords(module, KEY_QWORDS);
  key?.forEach((qword, i) => {
    tdcs.setU64(TDCS.MIG_ENC_KEY + 8 * i, qword);
  });
  return key !== undefined;
}
