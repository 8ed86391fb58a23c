/** The chain of listeners that may refuse memory going online (Linux host rules 1.8). */
import { type AddressRange, contains, formatRange, PAGE_4K } from '../abi/address.ts';
import { type ErrnoName, KernelError } from '../abi/errno.ts';
import type { TdxMemoryBlock } from './memlist.ts';
import type { HotplugPolicy } from './policy/kernel-policy.ts';

/** Called before memory goes online; throws KernelError to refuse. @public */
export type GoingOnline = (range: AddressRange) => void;

/** @public */
export class MemoryNotifiers {
  /** Fault point: the errno with which the next registrations fail. */
  fault: ErrnoName | null = null;
  readonly #chain: GoingOnline[] = [];

  /** Listeners registered. */
  get count(): number {
    return this.#chain.length;
  }

  /** Throws the errno of `fault`. */
  register(listener: GoingOnline): void {
    if (this.fault !== null) {
      throw new KernelError(
        this.fault,
        'memory-notifier',
        'the memory hot-plug notifier could not be registered',
      );
    }
    this.#chain.push(listener);
  }

  /** Asks every listener. Throws what the first refusal throws. */
  goingOnline(range: AddressRange): void {
    for (const listener of this.#chain) listener(range);
  }
}

/**
 * TDX's rule: with TDX memory fixed, what goes online must lie in one entry of its list, or the page allocator
 * would hand TDs memory the module does not know. Throws EPERM.
 * @public
 */
export function checkGoingOnline(
  range: AddressRange,
  memlist: readonly TdxMemoryBlock[],
  policy: HotplugPolicy,
): void {
  if (memlist.length === 0 || policy === 'allow') return;
  const inside = memlist.some((block) =>
    contains({ start: block.startPfn * PAGE_4K, end: block.endPfn * PAGE_4K }, range),
  );
  if (inside) return;
  throw new KernelError(
    'EPERM',
    'not-tdx-memory',
    `memory ${formatRange(range)} does not lie in one entry of the TDX memory list, which is fixed since TDX was initialised`,
    { range: { start: range.start, end: range.end } },
  );
}
