/** Pages that are present and that nobody can have: their memory has failed, or a balloon holds them. */

/** Pages of a node that are out of use. @internal */
export interface OutOfUseAccount {
  readonly poisoned: number;
  readonly ballooned: number;
}

const NONE: OutOfUseAccount = { poisoned: 0, ballooned: 0 };

/** @internal */
export class OutOfUse {
  /** Page frames whose memory has failed, present or not. */
  readonly #poisoned = new Set<number>();
  /** Those of them that are present and that nobody has. */
  readonly #retired = new Set<number>();
  readonly #accounts = new Map<number, OutOfUseAccount>();

  isPoisoned(pfn: number): boolean {
    return this.#poisoned.has(pfn);
  }

  poison(pfn: number): void {
    this.#poisoned.add(pfn);
  }

  /** Page frames of a range whose memory has failed, ascending. */
  poisonedIn(pfn: number, pages: number): readonly number[] {
    if (this.#poisoned.size === 0) return [];
    return [...this.#poisoned].filter((page) => page >= pfn && page < pfn + pages).sort((a, b) => a - b);
  }

  /** Those of them that nobody has. */
  retiredIn(pfn: number, pages: number): readonly number[] {
    return this.poisonedIn(pfn, pages).filter((page) => this.#retired.has(page));
  }

  /** Nobody has failed pages of `node` any more. */
  retire(node: number, pages: readonly number[]): void {
    for (const pfn of pages) this.#retired.add(pfn);
    this.account(node, 'poisoned', pages.length);
  }

  /** Retired pages of `node` are no longer present. */
  removed(node: number, pages: readonly number[]): void {
    for (const pfn of pages) this.#retired.delete(pfn);
    this.account(node, 'poisoned', -pages.length);
  }

  /** Memory that is not present was replaced by good memory. */
  replaced(pages: readonly number[]): void {
    for (const pfn of pages) this.#poisoned.delete(pfn);
  }

  on(node: number): OutOfUseAccount {
    return this.#accounts.get(node) ?? NONE;
  }

  account(node: number, kind: keyof OutOfUseAccount, pages: number): void {
    if (pages === 0) return;
    const account = this.on(node);
    this.#accounts.set(node, { ...account, [kind]: account[kind] + pages });
  }

  /** State for a saved machine. */
  save() {
    return { poisoned: this.#poisoned, retired: this.#retired, accounts: this.#accounts };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<OutOfUse['save']>): void {
    for (const pfn of saved.poisoned) this.#poisoned.add(pfn);
    for (const pfn of saved.retired) this.#retired.add(pfn);
    for (const [node, account] of saved.accounts) this.#accounts.set(node, account);
  }
}
