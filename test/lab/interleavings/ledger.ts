/** What guests and user space wrote where, and what may have been lost of it by what user space did. */

/** Which of a page's two memories; one that is converted in place has only one. */
export type Kind = 'private' | 'shared';

/** How far changes of a page had come at one time. */
export interface Mark {
  readonly changes: number;
  readonly isChanging: boolean;
  /** Times that a guest had been told of a new page. */
  readonly told: number;
}

interface Page {
  /** Changes begun and ended. */
  changes: number;
  underWay: number;
  /** Times that a guest was told of a new page here. */
  told: number;
}

interface Written {
  readonly page: number;
  readonly kind: Kind;
  readonly mark: Mark;
  readonly bytes: Uint8Array;
}

export class Ledger {
  readonly #hasOneMemory: boolean;
  readonly #pages = new Map<string, Page>();
  /** By page and writer: what was written last, by the one who writes there. */
  readonly #written = new Map<string, Written>();
  /** Reads whose result was certain, and those of what may have been lost. */
  firm = 0;
  loose = 0;

  /** `hasOneMemory`: a page keeps its bytes when it is converted. */
  constructor(hasOneMemory: boolean) {
    this.#hasOneMemory = hasOneMemory;
  }

  /** Does `work`, which may throw away what is in `pages`. */
  async losing(
    pages: readonly number[],
    kinds: readonly Kind[],
    work: () => Promise<unknown>,
  ): Promise<void> {
    const changed = pages.flatMap((page) => kinds.map((kind) => this.#page(page, kind)));
    for (const page of changed) {
      page.changes++;
      page.underWay++;
    }
    try {
      await work();
    } finally {
      for (const page of changed) {
        page.changes++;
        page.underWay--;
      }
    }
  }

  /** A guest is told that it has another page than before. */
  tell(page: number): void {
    this.#page(page, 'private').told++;
  }

  /** Before a write begins. */
  mark(page: number, kind: Kind): Mark {
    const { changes, underWay, told } = this.#page(page, kind);
    return { changes, isChanging: underWay > 0, told };
  }

  /** `writer` has written `bytes`, begun at `mark`. */
  wrote(page: number, kind: Kind, writer: string, bytes: Uint8Array, mark: Mark): void {
    this.#written.set(this.#key(page, kind, writer), { page, kind, mark, bytes });
  }

  /** Where bytes of `writer` should be, and nothing that anybody does is to have changed them. */
  writtenBy(writer: string): readonly { readonly page: number; readonly kind: Kind }[] {
    const found = [...this.#written].filter(([key]) => key.endsWith(` ${writer}`));
    return found
      .map(([, { page, kind, mark }]) => ({ page, kind, mark }))
      .filter(({ page, kind, mark }) => this.#isFirm(page, kind, mark));
  }

  /** What `writer` wrote is no longer looked for. */
  forget(page: number, kind: Kind, writer: string): void {
    this.#written.delete(this.#key(page, kind, writer));
  }

  /** `writer` reads back. Throws Error where its bytes are not there and nobody may have thrown them away. */
  read(page: number, kind: Kind, writer: string, bytes: Uint8Array, isTold: boolean): void {
    const written = this.#written.get(this.#key(page, kind, writer));
    if (written === undefined) return;
    const now = this.#page(page, kind);
    const isFirm = this.#isFirm(page, kind, written.mark);
    if (isFirm) this.firm++;
    else this.loose++;
    if (written.bytes.every((byte, i) => bytes[i] === byte)) return;
    const found = `${writer} finds ${hex(bytes)} in ${kind} memory of page ${page} and wrote ${hex(written.bytes)}`;
    if (isFirm) throw new Error(`data was lost: ${found}`);
    if (isTold && kind === 'private' && now.told === written.mark.told) {
      throw new Error(`a private page was replaced and nobody told: ${found}`);
    }
  }

  #isFirm(page: number, kind: Kind, { isChanging, changes }: Mark): boolean {
    return !isChanging && this.#page(page, kind).changes === changes;
  }

  #page(page: number, kind: Kind): Page {
    const key = this.#key(page, kind, '');
    const known = this.#pages.get(key) ?? { changes: 0, underWay: 0, told: 0 };
    this.#pages.set(key, known);
    return known;
  }

  #key(page: number, kind: Kind, writer: string): string {
    return `${page} ${this.#hasOneMemory ? 'one' : kind} ${writer}`;
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
