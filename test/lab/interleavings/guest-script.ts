/** Guests that keep accounts: what they wrote to private or shared memory they find there again. */
import { PAGE_4K } from '../../../src/abi/address.ts';
import type { GuestCpu, GuestFlow, GuestScript } from '../../../src/lab/guest/flow.ts';
import type { Dialect } from './dialects.ts';
import type { Kind } from './ledger.ts';
import type { GuestStep } from './program.ts';
import { gpaOf, type Race } from './race.ts';

/** What guests write to private memory, and nobody else anywhere. */
export const SECRET = Uint8Array.of(0x5e, 0xc7, 0xe7, 0x5e, 0xc7, 0xe7, 0x77, 0x99);
const PUBLIC = new TextEncoder().encode('public__');
/** Each vCPU has a line of its own in each page, and each thread of user space one behind them. */
const LINE = 64;
const HOST_LINES = 8 * LINE;
/** Bytes of a cell: what it is, who wrote it, how often. */
export const CELL_BYTES = 16;

/** Tries to wipe a page. */
const TRIES = 20;

/** Contents of a cell. */
export function cell(isSecret: boolean, writer: number, count: number): Uint8Array {
  const bytes = new Uint8Array(CELL_BYTES);
  bytes.set(isSecret ? SECRET : PUBLIC);
  new DataView(bytes.buffer).setUint32(8, writer);
  new DataView(bytes.buffer).setUint32(12, count);
  return bytes;
}

/** Offset in a page of the line of a vCPU, or of a thread of user space. */
export function lineOf(writer: number, isHost: boolean): number {
  return (isHost ? HOST_LINES : 0) + writer * LINE;
}

/** The last page that programs number is nobody's own: there guests keep no secrets from a VMM that decides on kinds. */
export const SCRATCH = 4;

/** The program of vCPU `index`. */
export function guestScript(race: Race, index: number): GuestScript {
  return function* (cpu) {
    const dialect = race.subject.dialect(cpu, (gpa) =>
      race.ledger.tell(Math.floor((gpa - gpaOf(0)) / PAGE_4K)),
    );
    const guest = new Guest(race, cpu, dialect);
    try {
      yield* dialect.start();
      for (const step of race.program.guests[index]!) yield* guest.take(step);
      yield* guest.lookAgain();
      race.finished.set(index, null);
    } catch (error) {
      // Thrown from here it would tear the processor out of the guest.
      race.finished.set(index, error as Error);
    }
    // The thread of the vCPU comes back from KVM_RUN and sees that all is done.
    race.threads[index]!.signal();
    yield* cpu.interrupt();
  };
}

class Guest {
  readonly #race: Race;
  readonly #cpu: GuestCpu;
  readonly #dialect: Dialect;
  /** Pages that this vCPU has made shared; all are private at first. */
  readonly #shared = new Set<number>();

  constructor(race: Race, cpu: GuestCpu, dialect: Dialect) {
    this.#race = race;
    this.#cpu = cpu;
    this.#dialect = dialect;
  }

  *take(step: GuestStep): GuestFlow {
    switch (step.do) {
      case 'write':
        return yield* this.#write(this.#own(step.page), this.#kind(this.#own(step.page), step.kind));
      case 'read':
        return yield* this.#read(this.#own(step.page), this.#kind(this.#own(step.page), step.kind));
      case 'convert':
        return yield* this.#convert(step);
      case 'rest':
        return yield* this.#cpu.interrupt();
    }
  }

  /** Reads everything back that this vCPU wrote and that is still what it was. */
  *lookAgain(): GuestFlow {
    for (const { page, kind } of this.#race.ledger.writtenBy(this.#name)) {
      if (this.#race.subject.tellsKinds || kind === this.#kind(page, kind)) yield* this.#read(page, kind);
    }
  }

  /** Where the guest cannot say what it takes memory for, each vCPU keeps to pages of its own, and the scratch page. */
  #own(page: number): number {
    const { subject, program } = this.#race;
    if (subject.tellsKinds || page === SCRATCH) return page;
    const vcpus = program.guests.length;
    const own = page - (page % vcpus) + this.#cpu.index;
    return own < SCRATCH ? own : this.#cpu.index;
  }

  #kind(page: number, wanted: Kind): Kind {
    const { subject } = this.#race;
    if (subject.backing === 'none') return 'shared';
    if (subject.tellsKinds) return wanted;
    return this.#shared.has(page) ? 'shared' : 'private';
  }

  /** Nobody can say which memory the scratch page is, where the VMM decides on that. */
  #isAccountable(page: number): boolean {
    return this.#race.subject.tellsKinds || page !== SCRATCH;
  }

  *#write(page: number, kind: Kind): GuestFlow {
    const { ledger } = this.#race;
    const { index } = this.#cpu;
    const bytes = cell(kind === 'private' && this.#isAccountable(page), index, ++this.#race.counter);
    const mark = ledger.mark(page, kind);
    ledger.forget(page, kind, this.#name);
    const isDone = yield* this.#dialect.write(gpaOf(page) + lineOf(index, false), bytes, kind);
    if (isDone && this.#isAccountable(page)) ledger.wrote(page, kind, this.#name, bytes, mark);
  }

  *#read(page: number, kind: Kind): GuestFlow {
    const at = gpaOf(page) + lineOf(this.#cpu.index, false);
    const bytes = yield* this.#dialect.read(at, CELL_BYTES, kind);
    if (bytes === null || !this.#isAccountable(page)) return;
    this.#race.ledger.read(page, kind, this.#name, bytes, this.#race.subject.tellsKinds);
  }

  *#convert({ page: first, pages, toPrivate }: Extract<GuestStep, { readonly do: 'convert' }>): GuestFlow {
    const { subject } = this.#race;
    const page = this.#own(first);
    const count = subject.tellsKinds ? pages : 1;
    if (!toPrivate && subject.hasOneMemory && !(yield* this.#wipe(page))) return;
    if (!(yield* this.#dialect.convert(gpaOf(page), count, toPrivate))) return;
    if (toPrivate) this.#shared.delete(page);
    else this.#shared.add(page);
  }

  /** What the host will read must hold no secret. False where that cannot be made sure: no memory is there. */
  *#wipe(page: number): GuestFlow<boolean> {
    const at = gpaOf(page) + lineOf(this.#cpu.index, false);
    const bytes = cell(false, this.#cpu.index, ++this.#race.counter);
    this.#race.ledger.forget(page, 'private', this.#name);
    for (let tries = 0; tries < TRIES; tries++) {
      yield* this.#dialect.write(at, bytes, 'private');
      const found = yield* this.#dialect.read(at, CELL_BYTES, 'private');
      if (found !== null && bytes.every((byte, i) => found[i] === byte)) return true;
      yield* this.#cpu.interrupt();
    }
    return false;
  }

  get #name(): string {
    return `vCPU ${this.#cpu.index}`;
  }
}
