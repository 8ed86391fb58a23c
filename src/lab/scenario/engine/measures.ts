/** What a life under a policy comes to, in figures that policies are compared by. */
import { type AddressRange, PAGE_4K } from '../../../abi/address.ts';
import { union } from '../../../abi/ranges.ts';
import type { PlannedEvent } from '../timeline.ts';
import { type Outcome, rootCause } from './outcome.ts';
import type { ScenarioHost } from './scenario-host.ts';

/** Counts by reason code. @public */
export type Counts = Readonly<Record<string, number>>;

/** @public */
export interface Measures {
  readonly starts: number;
  /** Starts of TDs that were refused, by the code of their first cause. */
  readonly refused: Counts;
  /** Events of living TDs that were refused: growing, converting. */
  readonly hindered: Counts;
  readonly killed: Counts;
  readonly failed: Counts;
  /** Most bytes of memory that were there at one time and that the host was refused. */
  readonly unusableBytes: number;
  /** Most bytes of PAMT, page pairs of Dynamic PAMT and what is set aside included. */
  readonly pamtBytes: number;
  /** Virtual time that the first start which came to something took; null without one. */
  readonly firstTdNs: number | null;
  /** Starts refused after an equal one had succeeded, with a KeyID and enough memory free. */
  readonly inconsistent: number;
  readonly bootNs: number;
}

/** @internal */
export class Meter {
  #starts = 0;
  readonly #refused = new Map<string, number>();
  readonly #hindered = new Map<string, number>();
  readonly #killed = new Map<string, number>();
  readonly #failed = new Map<string, number>();
  /** Starts that succeeded, by what they asked for. */
  readonly #succeeded = new Set<string>();
  #unusableBytes = 0;
  #pamtBytes = 0;
  #firstTdNs: number | null = null;
  #inconsistent = 0;

  /** Looks at what came of an event. */
  note(host: ScenarioHost, event: PlannedEvent, outcomes: readonly Outcome[]): void {
    for (const outcome of outcomes) this.#count(outcome);
    if (event.do === 'td-start') this.#start(host, event, outcomes[0]!);
    this.look(host);
  }

  /** Looks at what grows and falls. */
  look({ kernel, refusedMemory, knownTdHost }: ScenarioHost): void {
    if (refusedMemory.length > 0) this.#unusableBytes = Math.max(this.#unusableBytes, bytesOf(refusedMemory));
    const pairs = knownTdHost?.pamt?.pairs ?? 0;
    const pamt = (kernel.enabled?.pamtKb ?? 0) * 1024 + (pairs * 2 + kernel.reservedPamtPages) * PAGE_4K;
    this.#pamtBytes = Math.max(this.#pamtBytes, pamt);
  }

  measures(bootNs: number): Measures {
    return {
      starts: this.#starts,
      refused: Object.fromEntries(this.#refused),
      hindered: Object.fromEntries(this.#hindered),
      killed: Object.fromEntries(this.#killed),
      failed: Object.fromEntries(this.#failed),
      unusableBytes: this.#unusableBytes,
      pamtBytes: this.#pamtBytes,
      firstTdNs: this.#firstTdNs,
      inconsistent: this.#inconsistent,
      bootNs,
    };
  }

  #count({ do: kind, result, reason }: Outcome): void {
    if (reason === null) return;
    const isOfTd = kind === 'td-grow' || kind === 'td-convert' || kind === 'balloon';
    const counts = {
      refused: kind === 'td-start' ? this.#refused : isOfTd ? this.#hindered : null,
      killed: this.#killed,
      failed: this.#failed,
      done: null,
    }[result];
    if (counts === null) return;
    const { code } = rootCause(reason);
    counts.set(code, (counts.get(code) ?? 0) + 1);
  }

  #start(
    { kernel, memory: hostMemory }: ScenarioHost,
    event: Extract<PlannedEvent, { do: 'td-start' }>,
    { result, reason, tookNs }: Outcome,
  ): void {
    this.#starts++;
    const { memory, vcpus, node } = event;
    const request = `${memory} ${vcpus} ${node ?? ''}`;
    if (result === 'done') {
      this.#succeeded.add(request);
      this.#firstTdNs ??= tookNs;
      return;
    }
    if (!this.#succeeded.has(request) || reason?.code === 'name-taken') return;
    const { keyIds } = kernel;
    const hasRoom = keyIds.current < keyIds.capacity && hostMemory.freePages(undefined) * PAGE_4K >= memory;
    if (hasRoom) this.#inconsistent++;
  }
}

function bytesOf(ranges: readonly AddressRange[]): number {
  return union(ranges).reduce((sum, { start, end }) => sum + end - start, 0);
}
