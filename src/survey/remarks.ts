/** What is noted while sources are put together, and how one source is chosen among several. */
import type { Evidence, Place } from './evidence.ts';
import type { Note } from './survey.ts';

/** @internal */
export class Remarks {
  readonly notes: Note[] = [];
  /** What assumptions are filed under: all sources together. */
  readonly #all: string;

  constructor(sources: string) {
    this.#all = sources;
  }

  /** Something about one place. */
  at(place: Place, text: string): void {
    this.notes.push({ ...place, text });
  }

  /** Something taken for granted because no source tells it. */
  assume(text: string): void {
    this.notes.push({ source: this.#all, text });
  }
}

/** The last source with the fact; earlier ones that have it too are noted as unused. @internal */
export function lastWith(
  evidence: readonly Evidence[],
  what: string,
  has: (one: Evidence) => boolean,
  remarks: Remarks,
): Evidence | undefined {
  const holders = evidence.filter(has);
  const last = holders.at(-1);
  for (const earlier of holders.slice(0, -1)) {
    remarks.at({ source: earlier.source }, `${what} left out: ${last!.source} has it too`);
  }
  return last;
}
