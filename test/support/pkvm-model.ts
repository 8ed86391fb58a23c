/** Who owns which page, told from the operations alone: nothing of the hypervisor is looked at. */

export type Owner = 'host' | 'hyp' | number;

interface ModelPage {
  owner: Owner;
  /** Who else may use it: 'hyp', 'host', or guests, by number, as often as they borrow it. */
  borrowers: Owner[];
  contents: number;
}

interface ModelGuest {
  readonly isProtected: boolean;
  /** Page by frame; 'poison' where the host took one by force. */
  readonly frames: Map<number, number | 'poison'>;
}

export class PkvmModel {
  readonly pages: ModelPage[];
  readonly guests: ModelGuest[];

  constructor(pages: number, guests: readonly boolean[]) {
    this.pages = Array.from({ length: pages }, () => ({ owner: 'host', borrowers: [], contents: 0 }));
    this.guests = guests.map((isProtected) => ({ isProtected, frames: new Map() }));
  }

  hostMayUse(page: number): boolean {
    const { owner, borrowers } = this.pages[page]!;
    return owner === 'host' || borrowers.includes('host');
  }

  /** The page behind a guest's frame, or undefined. */
  guestPage(guest: number, frame: number): number | undefined {
    const page = this.guests[guest]!.frames.get(frame);
    return page === 'poison' ? undefined : page;
  }

  /** The operations below return whether they are allowed, and do what they say when they are. */
  shareHyp(page: number): boolean {
    if (!this.#isHostsAlone(page)) return false;
    this.pages[page]!.borrowers.push('hyp');
    return true;
  }

  unshareHyp(page: number): boolean {
    return this.#drop(page, 'hyp');
  }

  donate(guest: number, page: number, frame: number): boolean {
    const { isProtected, frames } = this.guests[guest]!;
    if (!isProtected || frames.has(frame) || !this.#isHostsAlone(page)) return false;
    this.pages[page]!.owner = guest;
    frames.set(frame, page);
    return true;
  }

  lend(guest: number, page: number, frame: number): boolean {
    const { isProtected, frames } = this.guests[guest]!;
    const { owner, borrowers } = this.pages[page]!;
    if (isProtected || frames.has(frame) || owner !== 'host' || borrowers.includes('hyp')) return false;
    borrowers.push(guest);
    frames.set(frame, page);
    return true;
  }

  takeBack(guest: number, frame: number): boolean {
    const page = this.guestPage(guest, frame);
    if (page === undefined || !this.#drop(page, guest)) return false;
    this.guests[guest]!.frames.delete(frame);
    return true;
  }

  guestShare(guest: number, frame: number): boolean {
    const page = this.guestPage(guest, frame);
    if (page === undefined || this.pages[page]!.owner !== guest || this.hostMayUse(page)) return false;
    this.pages[page]!.borrowers.push('host');
    return true;
  }

  guestUnshare(guest: number, frame: number): boolean {
    const page = this.guestPage(guest, frame);
    return page !== undefined && this.pages[page]!.owner === guest && this.#drop(page, 'host');
  }

  /** The host takes a page that it cannot use from whichever guest has it. */
  seize(page: number): boolean {
    const { owner } = this.pages[page]!;
    if (typeof owner !== 'number' || this.hostMayUse(page)) return false;
    const { frames } = this.guests[owner]!;
    for (const [frame, at] of frames) if (at === page) frames.set(frame, 'poison');
    this.#return(page, true);
    return true;
  }

  /** A guest ends; the host gets everything back. */
  end(guest: number): void {
    const { frames } = this.guests[guest]!;
    for (const page of frames.values()) {
      if (page === 'poison') continue;
      if (this.pages[page]!.owner === guest) this.#return(page, !this.hostMayUse(page));
      else this.#drop(page, guest);
    }
    frames.clear();
  }

  #return(page: number, isWiped: boolean): void {
    const { contents } = this.pages[page]!;
    this.pages[page] = { owner: 'host', borrowers: [], contents: isWiped ? 0 : contents };
  }

  #isHostsAlone(page: number): boolean {
    const { owner, borrowers } = this.pages[page]!;
    return owner === 'host' && borrowers.length === 0;
  }

  #drop(page: number, borrower: Owner): boolean {
    const { borrowers } = this.pages[page]!;
    const at = borrowers.indexOf(borrower);
    if (at === -1) return false;
    borrowers.splice(at, 1);
    return true;
  }
}
