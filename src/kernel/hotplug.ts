/** Memory that comes and goes at run time: ACPI events, going online and offline (Linux host rules 1.8, 5.9). */
import { type AddressRange, contains, formatRange, overlaps } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import type { MemoryRange } from '../machine/description.ts';
import type { AcpiEvent } from '../machine/machine.ts';
import type { PageAllocator } from './allocator.ts';
import type { LogRing } from './log.ts';
import { type MemblockRegion, mergeMemblock } from './memblock.ts';
import type { TdxMemoryBlock } from './memlist.ts';
import { memoryBlockSize } from './memory-blocks.ts';
import { checkGoingOnline, MemoryNotifiers } from './memory-notifier.ts';
import type { HotplugPolicy } from './policy/kernel-policy.ts';

/** @public */
export type MemoryEvent = Exclude<AcpiEvent, { readonly type: 'cpu-add' }>;

/** What hot-plug decisions look at. @public */
export interface HotplugState {
  /** TDX memory once fixed; empty before. */
  readonly memlist: readonly TdxMemoryBlock[];
  readonly policy: HotplugPolicy;
}

/** @public */
export class MemoryHotplug {
  readonly notifiers = new MemoryNotifiers();
  readonly blockSize: number;
  /** Memory was plugged in after boot. */
  addedSinceBoot = false;
  #memblock: readonly MemblockRegion[];
  #offline: readonly MemblockRegion[] = [];
  readonly #allocator: PageAllocator;
  readonly #log: LogRing;
  readonly #state: () => HotplugState;

  constructor(
    memblock: readonly MemblockRegion[],
    allocator: PageAllocator,
    log: LogRing,
    state: () => HotplugState,
  ) {
    this.#memblock = memblock;
    this.#allocator = allocator;
    this.#log = log;
    this.#state = state;
    this.blockSize = memoryBlockSize(memblock.at(-1)?.end ?? 0);
  }

  /** Memory the page allocator has, and legacy persistent memory. */
  get memblock(): readonly MemblockRegion[] {
    return this.#memblock;
  }

  /** Memory the kernel knows and does not use. */
  get offline(): readonly MemblockRegion[] {
    return this.#offline;
  }

  /** ACPI tells of memory that came or goes. */
  handle({ type, range }: MemoryEvent): void {
    if (type === 'memory-add') this.#added(range);
    else this.#removed(range);
  }

  /** ACPI announced new memory: it is registered offline, unless the policy refuses it, which the log tells. */
  #added(range: MemoryRange): void {
    const { policy, memlist } = this.#state();
    const tdxOn = memlist.length > 0;
    const where = formatRange(range);
    if (tdxOn && policy === 'winner-takes-all') {
      this.#log.err(`hot-added memory ${where} refused: TDX is on`, 'hot-add-refused');
      return;
    }
    if (policy === 'reject-at-add') {
      try {
        checkGoingOnline(range, memlist, policy);
      } catch (error) {
        if (!(error instanceof KernelError)) throw error;
        this.#log.err(`hot-added memory ${where} refused: ${error.reason.text}`, 'hot-add-refused');
        return;
      }
    }
    this.#log.info(`hot-added memory ${where} on node ${range.node}, offline`, 'hot-add');
    this.addedSinceBoot = true;
    const { start, end, node } = range;
    this.#offline = mergeMemblock([...this.#offline, { start, end, node, kind: 'ram' }]);
  }

  /** ACPI took memory away: pages in use go with it, and the log says so. */
  #removed(range: AddressRange): void {
    const where = formatRange(range);
    if (this.#offline.some((region) => contains(region, range))) {
      this.#offline = without(this.#offline, range);
      this.#log.info(`memory ${where} removed`, 'hot-remove');
      return;
    }
    try {
      this.goOffline(range);
      this.#offline = without(this.#offline, range);
      this.#log.warn(`memory ${where} removed without having been offline`, 'hot-remove');
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.#log.err(`memory ${where} removed while in use: ${error.reason.text}`, 'hot-remove-in-use');
    }
  }

  /**
   * Brings offline memory into the page allocator. Throws EINVAL when the range is not offline memory, EPERM when
   * a notifier refuses.
   */
  goOnline(range: AddressRange): void {
    const region = this.#offline.find((candidate) => contains(candidate, range));
    if (region === undefined) {
      throw new KernelError(
        'EINVAL',
        'not-offline-memory',
        `memory ${formatRange(range)} is not there or not offline`,
        {
          range: { start: range.start, end: range.end },
        },
      );
    }
    this.#align(range);
    try {
      this.notifiers.goingOnline(range);
    } catch (error) {
      if (error instanceof KernelError)
        this.#log.debug(`online refused: ${error.reason.text}`, error.reason.code);
      throw error;
    }
    this.#offline = without(this.#offline, range);
    this.#memblock = mergeMemblock([...this.#memblock, { ...region, start: range.start, end: range.end }]);
    this.#allocator.addMemory(range, region.node);
  }

  /** Takes memory out of the page allocator. Throws EINVAL when it is not online, EBUSY when pages cannot move. */
  goOffline(range: AddressRange): void {
    const region = this.#memblock.find((candidate) => candidate.kind === 'ram' && contains(candidate, range));
    const data = { range: { start: range.start, end: range.end } };
    if (region === undefined) {
      throw new KernelError(
        'EINVAL',
        'not-online-memory',
        `memory ${formatRange(range)} is not online on one node`,
        data,
      );
    }
    this.#align(range);
    if (!this.#allocator.removeMemory(range)) {
      throw new KernelError(
        'EBUSY',
        'memory-in-use',
        `memory ${formatRange(range)} holds pages that cannot move`,
        data,
      );
    }
    this.#memblock = without(this.#memblock, range);
    this.#offline = mergeMemblock([...this.#offline, { ...region, start: range.start, end: range.end }]);
  }

  /** State for a saved machine. */
  save() {
    return {
      memblock: this.#memblock,
      offline: this.#offline,
      addedSinceBoot: this.addedSinceBoot,
      notifiers: this.notifiers.count,
    };
  }

  /** Goes on from what `save` gave; the listeners of `notifiers` register themselves again. */
  restore(saved: ReturnType<MemoryHotplug['save']>): void {
    this.#memblock = saved.memblock;
    this.#offline = saved.offline;
    this.addedSinceBoot = saved.addedSinceBoot;
  }

  #align(range: AddressRange): void {
    if (range.start % this.blockSize === 0 && range.end % this.blockSize === 0 && range.start < range.end)
      return;
    throw new KernelError(
      'EINVAL',
      'memory-block-alignment',
      `memory ${formatRange(range)} is not made of whole memory blocks of ${this.blockSize} bytes`,
      { range: { start: range.start, end: range.end }, blockSize: this.blockSize },
    );
  }
}

/** `regions` less `range`. */
function without(regions: readonly MemblockRegion[], range: AddressRange): readonly MemblockRegion[] {
  return regions.flatMap((region) =>
    overlaps(region, range)
      ? [
          { ...region, end: Math.min(region.end, range.start) },
          { ...region, start: Math.max(region.start, range.end) },
        ].filter((piece) => piece.start < piece.end)
      : [region],
  );
}
