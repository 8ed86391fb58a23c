/** Plays scripts on processors: what hardware does between a VM entry and the next VM exit. */
import {
  type GuestAction,
  type GuestAnswer,
  GuestCpu,
  type GuestException,
  type GuestFlow,
  type GuestScript,
} from './flow.ts';
import { RegisterSnapshots } from './register-snapshots.ts';

/** What a processor makes of an action: the answer, an exit of type `E`, or an event that waits to be taken. @internal */
export type Performed<E> = E | { readonly answer: GuestAnswer } | 'event';

/** A processor that runs guests `V` and leaves them with exits `E`. @internal */
export interface ScriptProcessor<V, E> {
  indexOf(vcpu: V): number;
  registers(vcpu: V): BigUint64Array;
  rip(vcpu: V): bigint;
  /** Puts the vCPU where a script begins: in 64-bit mode. */
  begin(vcpu: V): void;
  /** Takes the event that is to be delivered now, if there is one. */
  takeEvent(vcpu: V): GuestException | null;
  /** Takes what the host's emulation read for the last action, if it did. */
  takeEmulated(vcpu: V): Uint8Array | null;
  perform(vcpu: V, action: GuestAction): Performed<E>;
  /** Moves RIP behind the action's instruction. */
  advance(vcpu: V, action: GuestAction): void;
  /** What a vCPU does whose script has returned. */
  readonly halt: GuestAction;
  /** The exit of an interrupt of the host. */
  interrupt(): E;
}

interface Guest {
  readonly flow: GuestFlow;
  /** What the script waits for, and the RIP it was begun at. */
  pending: { readonly action: GuestAction; readonly rip: bigint } | null;
  /** Answer to an action that needed no VM exit. */
  answer: GuestAnswer | null;
  done: boolean;
}

/** @internal */
export class ScriptPlayer<V extends { readonly address: number }, E extends { readonly reason: number }> {
  readonly #processor: ScriptProcessor<V, E>;
  readonly #scriptOf: (vcpu: V) => GuestScript | undefined;
  readonly #guests = new Map<number, Guest>();
  readonly #snapshots = new RegisterSnapshots();

  constructor(processor: ScriptProcessor<V, E>, scriptOf: (vcpu: V) => GuestScript | undefined) {
    this.#processor = processor;
    this.#scriptOf = scriptOf;
  }

  /** The vCPU at `address` begins anew. */
  forget(address: number): void {
    this.#guests.delete(address);
  }

  isDone(address: number): boolean {
    return this.#guests.get(address)?.done === true;
  }

  /** Runs the vCPU to its next exit, which an interrupt of the host brings about after `budget` actions. */
  run(vcpu: V, budget: number): E {
    const processor = this.#processor;
    const guest = this.#guestOf(vcpu);
    // An event that is due is delivered before an interrupt makes the guest exit, which would lose it.
    let isEventDue = false;
    for (let actions = 0; actions < budget || isEventDue; actions++) {
      const action = this.#nextAction(guest, vcpu);
      guest.pending = { action, rip: processor.rip(vcpu) };
      const result = processor.perform(vcpu, action);
      isEventDue = result === 'event';
      if (result === 'event') continue;
      if (!('answer' in result)) return result;
      processor.advance(vcpu, action);
      guest.answer = result.answer;
    }
    return processor.interrupt();
  }

  #guestOf(vcpu: V): Guest {
    const known = this.#guests.get(vcpu.address);
    if (known !== undefined) return known;
    const script = this.#scriptOf(vcpu);
    if (script === undefined) throw new Error(`vCPU 0x${vcpu.address.toString(16)} has no script`);
    const flow = script(new GuestCpu(this.#processor.indexOf(vcpu)));
    const guest: Guest = { flow, pending: null, answer: null, done: false };
    this.#guests.set(vcpu.address, guest);
    this.#processor.begin(vcpu);
    return guest;
  }

  /** The next thing the script wants, after it heard what came of the last. */
  #nextAction(guest: Guest, vcpu: V): GuestAction {
    const processor = this.#processor;
    const event = processor.takeEvent(vcpu);
    const { pending } = guest;
    // An action whose instruction did not complete is tried again: what it needed is there now, or the host is asked again.
    if (
      event === null &&
      pending !== null &&
      pending.rip === processor.rip(vcpu) &&
      !isInterrupt(pending.action)
    ) {
      return pending.action;
    }
    const answer =
      guest.answer ?? processor.takeEmulated(vcpu) ?? this.#snapshots.take(processor.registers(vcpu));
    guest.answer = null;
    if (guest.done) return processor.halt;
    // The script's handler of a fault returns behind the instruction.
    if (event !== null && pending !== null) processor.advance(vcpu, pending.action);
    const step = event === null ? guest.flow.next(answer) : guest.flow.throw(event);
    if (step.done !== true) return step.value;
    guest.done = true;
    return processor.halt;
  }
}

const EXTERNAL_INTERRUPT = 1;

function isInterrupt(action: GuestAction): boolean {
  return action.kind === 'instruction' && action.reason === EXTERNAL_INTERRUPT;
}
