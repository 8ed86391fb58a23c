/** Events that a processor raises by itself are delivered before an interrupt of the host ends the guest's turn. */
import { describe, expect, it } from 'vitest';
import { EXIT } from '../../../src/abi/vm-exit.ts';
import { type GuestAction, GuestCpu, GuestException, type GuestScript } from '../../../src/lab/guest/flow.ts';
import { ScriptPlayer, type ScriptProcessor } from '../../../src/lab/guest/script-player.ts';

interface Processor {
  readonly address: number;
  rip: bigint;
  event: GuestException | null;
}

/** Raises an exception at each instruction of a technology; leaving it with one that is due loses that. */
const PROCESSOR: ScriptProcessor<Processor, { readonly reason: number }> = {
  indexOf: () => 0,
  registers: () => new BigUint64Array(16),
  rip: ({ rip }) => rip,
  begin: () => undefined,
  takeEvent(processor) {
    const { event } = processor;
    processor.event = null;
    return event;
  },
  takeEmulated: () => null,
  perform(processor, { kind }) {
    if (kind !== 'technology') return { answer: new Uint8Array() };
    processor.event = new GuestException(6, undefined);
    return 'event';
  },
  advance(processor) {
    processor.rip++;
  },
  halt: new GuestCpu(0).hlt().next().value as GuestAction,
  interrupt: () => ({ reason: EXIT.EXTERNAL_INTERRUPT }),
};

describe('an event that is due when the budget is spent', () => {
  it.each([1, 2, 3])('reaches the script, with a budget of %i', (budget) => {
    const caught: number[] = [];
    const script: GuestScript = function* (cpu) {
      for (let i = 0; i < 3; i++) {
        try {
          yield* cpu.technology('none', 1);
        } catch (error) {
          caught.push((error as GuestException).vector);
        }
        yield* cpu.write(0, Uint8Array.of(1));
      }
    };
    const processor: Processor = { address: 1, rip: 0n, event: null };
    const player = new ScriptPlayer(PROCESSOR, () => script);
    for (let turns = 0; turns < 20 && !player.isDone(1); turns++) {
      player.run(processor, budget);
      // What an exit does to an event that VM entry was to inject.
      processor.event = null;
    }
    expect(caught).toEqual([6, 6, 6]);
  });
});
