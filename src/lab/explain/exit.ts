/** Explains RAX after a TD exit that went well: no status bits, the exit reason in the low 16 bits. */
import { hex } from '../../abi/address.ts';
import { EXIT_REASONS } from './exit-reasons.ts';
import type { Explanation } from './explanation.ts';

/** One explanation when `value` is an exit reason the architecture names, none otherwise. @internal */
export function explainExit(value: bigint): Explanation[] {
  const words = value < 0x1_0000n ? EXIT_REASONS[Number(value)] : undefined;
  if (words === undefined) return [];
  return [
    {
      kind: 'status',
      name: 'a TD exit',
      number: hex(value),
      summary: `After TDH.VP.ENTER: the TD gave control back, exit reason ${value}: ${words}.`,
      facts: [],
      cases: [],
      data: { value, exitReason: Number(value) },
      parts: [],
    },
  ];
}
