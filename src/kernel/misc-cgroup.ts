/** A resource of the misc controller (Linux host rules 1.10): so many of a thing exist, and a group may be held to fewer. */

/** The one group that everybody is in. @public */
export class MiscResource {
  /** misc.capacity: 0 while nobody offers the resource. */
  capacity = 0;
  /** misc.max; null for "max". */
  max: number | null = null;
  #current = 0;
  #failed = 0;

  /** misc.current. */
  get current(): number {
    return this.#current;
  }

  /** misc.events: charges refused because of `max`. */
  get failed(): number {
    return this.#failed;
  }

  /** Takes one; false when that would be more than `max` or `capacity`. */
  tryCharge(): boolean {
    const limit = Math.min(this.max ?? this.capacity, this.capacity);
    if (this.#current >= limit) {
      this.#failed++;
      return false;
    }
    this.#current++;
    return true;
  }

  /** Gives one back. Throws a plain Error when none is out. */
  uncharge(): void {
    if (this.#current === 0) throw new Error('a misc resource was given back that nobody had taken');
    this.#current--;
  }
}
