/** Random calls as fast-check commands. */
import fc from 'fast-check';
import type { AbstractState } from '../../../src/lab/invariants/abstract-state.ts';
import { Dice } from './dice.ts';
import { changeMapping, mapPage, stepGuest, useMemory } from './memory-actions.ts';
import type { ModelRun } from './model-run.ts';
import {
  enterOddly,
  movePair,
  oddCall,
  readPage,
  spoiltCall,
  useMetadata,
  writeBack,
} from './odd-actions.ts';
import { advanceTd, buildTd, createTd, endTd, enterVcpu, flushVcpu } from './td-actions.ts';

type Action = (run: ModelRun, dice: Dice) => void;

/** Actions with their weights. */
const ACTIONS: readonly (readonly [weight: number, action: Action])[] = [
  [1, createTd],
  [2, buildTd],
  [4, advanceTd],
  [1, endTd],
  [1, flushVcpu],
  [5, enterVcpu],
  [10, stepGuest],
  [18, useMemory],
  [8, mapPage],
  [8, changeMapping],
  [3, oddCall],
  [3, spoiltCall],
  [1, readPage],
  [1, movePair],
  [1, writeBack],
  [1, enterOddly],
  [3, useMetadata],
];

class RandomCommand implements fc.Command<AbstractState, ModelRun> {
  readonly #action: Action;
  readonly #seed: number;

  constructor(action: Action, seed: number) {
    this.#action = action;
    this.#seed = seed;
  }

  check(): boolean {
    return true;
  }

  run(_state: AbstractState, real: ModelRun): void {
    if (real.hostLps().length > 0) this.#action(real, new Dice(this.#seed));
  }

  toString(): string {
    return `${this.#action.name}(${this.#seed})`;
  }
}

/** Sequences of up to `maxCommands` commands, each of which makes one call or a few. */
export function randomCommands(maxCommands: number): ReturnType<typeof fc.commands<AbstractState, ModelRun>> {
  const arbitraries = ACTIONS.flatMap(([weight, action]) => {
    const command = fc
      .noShrink(fc.integer({ min: 0, max: 0x7fff_ffff }))
      .map((seed) => new RandomCommand(action, seed));
    return Array.from({ length: weight }, () => command);
  });
  return fc.commands<AbstractState, ModelRun>(arbitraries, { maxCommands, size: 'max' });
}
