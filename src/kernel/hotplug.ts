/** Memory that comes and goes at run time: ACPI events, dax/kmem, going online and offline (Linux host rules 1.8, 5.9). */
import { type AddressRange, contains, formatRange, overlaps } from '../abi/address.ts';
import { KernelError, type Reason } from '../abi/errno.ts';
import type { MemoryRange } from '../machine/description.ts';
import type { AcpiEvent } from '../machine/machine.ts';
import type { PageAllocator } from './allocator.ts';
import { describeCmrConflict } from './cmr-conflict.ts';
import { checkMayAdd, isInMemlist } from './hotplug-rules.ts';
import type { LogRing } from './log.ts';
import { type MemblockRegion, type MemorySource, mergeMemblock, without } from './memblock.ts';
import type { TdxMemoryBlock } from './memlist.ts';
import { memoryBlockSize } from './memory-blocks.ts';
import { MemoryNotifiers } from './memory-notifier.ts';
import type { CmrRemovalPolicy, HotplugPolicy } from './policy/kernel-policy.ts';

/** @public */
export type MemoryEvent = Exclude<AcpiEvent, { readonly type: 'cpu-add' }>;

/** What hot-plug decisions look at. @public */
export interface HotplugState {
  /** TDX memory once fixed; empty before. */
  readonly memlist: readonly TdxMemoryBlock[];
  /** As the module reported them; null before it was asked, which takes VMX operation. */
  readonly cmrs: readonly AddressRange[] | null;
  readonly policy: HotplugPolicy;
  readonly cmrRemoval: CmrRemovalPolicy;
  /** Memory that is plugged in, whatever it is made of. */
  readonly plugged: readonly MemoryRange[];
  /** The kernel stops. */
  readonly stop: (why: Reason) => void;
}

/** Where memory goes when it is brought online: `auto` is `kernel`, as without movable_node. @public */
export type OnlineZone = 'auto' | 'kernel' | 'movable';

/** Memory that was plugged in and refused. @public */
export interface RefusedMemory {
  readonly range: MemoryRange;
  readonly why: Reason;
}

/** @public */
export class MemoryHotplug {
  readonly notifiers = new MemoryNotifiers();
  readonly blockSize: number;
  /** Memory was plugged in after boot. */
  addedSinceBoot = false;
  #memblock: readonly MemblockRegion[];
  #offline: readonly MemblockRegion[] = [];
  #removed: readonly MemblockRegion[] = [];
  #refused: readonly RefusedMemory[] = [];
  /** Node that memory of a node goes to when it is no TDX memory, under `separate-node`. */
  readonly #separateNodes = new Map<number, number>();
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

  /** Memory the kernel used or could have used, and that is no longer there. */
  get removed(): readonly MemblockRegion[] {
    return this.#removed;
  }

  /** Memory that is plugged in and that the kernel refused. */
  get refused(): readonly RefusedMemory[] {
    return this.#refused;
  }

  /** Memory that is there and no System RAM: devices that dax/kmem could bind, and what was refused. */
  get idle(): readonly MemoryRange[] {
    const known = [...this.#memblock.filter(({ kind }) => kind === 'ram'), ...this.#offline];
    const ranges = [
      ...this.#state().plugged.filter(({ kind }) => kind !== 'ram'),
      ...this.#refused.map(({ range }) => range).filter(({ kind }) => kind === 'ram'),
    ];
    return known.reduce<readonly MemoryRange[]>((rest, region) => without(rest, region), ranges);
  }

  /** System RAM as /proc/iomem names it. */
  resources(): readonly (AddressRange & { readonly name: 'System RAM' | 'System RAM (kmem)' })[] {
    const ram = [...this.#memblock.filter(({ kind }) => kind === 'ram'), ...this.#offline];
    return ram
      .sort((a, b) => a.start - b.start)
      .map(({ start, end, source }) => ({
        start,
        end,
        name: source === 'kmem' ? 'System RAM (kmem)' : 'System RAM',
      }));
  }

  /** ACPI tells of memory that came or goes. */
  handle({ type, range }: MemoryEvent): void {
    const { cmrs, cmrRemoval, stop } = this.#state();
    const conflict = describeCmrConflict(type, range, cmrs);
    if (conflict !== null) {
      this.#log.err(conflict.text, conflict.code);
      if (cmrRemoval === 'bug') {
        stop(conflict);
        return;
      }
    }
    if (type === 'memory-add') this.#added(range);
    else this.#removedBy(range);
  }

  /**
   * dax/kmem binds a device's memory: it becomes driver-managed System RAM, offline. Throws ENODEV where no memory is,
   * EBUSY where the kernel has it already, EINVAL for parts of memory blocks, EPERM where the policy refuses it.
   */
  kmemAdd(range: AddressRange): void {
    const holder = this.#state().plugged.find((plugged) => contains(plugged, range));
    if (holder === undefined) throw this.#refusal('ENODEV', 'memory-absent', range, 'is not there');
    if (this.#isKnown(range)) throw this.#refusal('EBUSY', 'memory-known', range, 'is System RAM already');
    this.#align(range);
    this.#register({ ...holder, start: range.start, end: range.end }, 'kmem');
    this.#log.info(`${formatRange(range)} is System RAM (kmem), offline`, 'kmem-add');
  }

  /** dax/kmem lets go of it. Throws EBUSY while it is online, EINVAL where it is not dax/kmem's. */
  kmemRemove(range: AddressRange): void {
    if (this.#offline.some((region) => region.source === 'kmem' && contains(region, range))) {
      this.#offline = without(this.#offline, range);
      this.#log.info(`${formatRange(range)} is no longer System RAM (kmem)`, 'kmem-remove');
      return;
    }
    if (this.#memblock.some((region) => region.source === 'kmem' && overlaps(region, range))) {
      throw this.#refusal('EBUSY', 'memory-online', range, 'is online: take it offline first');
    }
    throw this.#refusal('EINVAL', 'not-kmem', range, 'is not dax/kmem’s');
  }

  /**
   * Brings offline memory into the page allocator. Throws EINVAL when the range is not offline memory, EHWPOISON when
   * memory in it has failed, EPERM when a notifier refuses.
   */
  goOnline(range: AddressRange, zone: OnlineZone = 'auto'): void {
    const region = this.#offline.find((candidate) => contains(candidate, range));
    if (region === undefined) {
      throw this.#refusal('EINVAL', 'not-offline-memory', range, 'is not there or not offline');
    }
    this.#align(range);
    const poisoned = this.#allocator.poisonedIn(range);
    if (poisoned.length > 0) {
      const what = `has ${poisoned.length} pages whose memory has failed`;
      throw this.#refusal('EHWPOISON', 'memory-poisoned', range, what, { pfns: poisoned });
    }
    try {
      this.notifiers.goingOnline(range);
    } catch (error) {
      if (error instanceof KernelError)
        this.#log.debug(`online refused: ${error.reason.text}`, error.reason.code);
      throw error;
    }
    const { memlist, policy } = this.#state();
    const isSeparate = policy === 'separate-zone' && memlist.length > 0 && !isInMemlist(range, memlist);
    this.#offline = without(this.#offline, range);
    this.#memblock = mergeMemblock([...this.#memblock, { ...region, start: range.start, end: range.end }]);
    const name = isSeparate ? 'NonTdx' : zone === 'movable' ? 'Movable' : undefined;
    this.#allocator.addMemory(range, region.node, name);
  }

  /** Takes memory out of the page allocator. Throws EINVAL when it is not online, EBUSY when pages cannot move. */
  goOffline(range: AddressRange): void {
    const region = this.#memblock.find((candidate) => candidate.kind === 'ram' && contains(candidate, range));
    if (region === undefined) {
      throw this.#refusal('EINVAL', 'not-online-memory', range, 'is not online on one node');
    }
    this.#align(range);
    if (!this.#allocator.removeMemory(range)) {
      throw this.#refusal('EBUSY', 'memory-in-use', range, 'holds pages that cannot move');
    }
    this.#memblock = without(this.#memblock, range);
    this.#offline = mergeMemblock([...this.#offline, { ...region, start: range.start, end: range.end }]);
  }

  /** State for a saved machine. */
  save() {
    return {
      memblock: this.#memblock,
      offline: this.#offline,
      removed: this.#removed,
      refused: this.#refused,
      separateNodes: this.#separateNodes,
      addedSinceBoot: this.addedSinceBoot,
      notifiers: this.notifiers.count,
    };
  }

  /** Goes on from what `save` gave; the listeners of `notifiers` register themselves again. */
  restore(saved: ReturnType<MemoryHotplug['save']>): void {
    this.#memblock = saved.memblock;
    this.#offline = saved.offline;
    this.#removed = saved.removed;
    this.#refused = saved.refused;
    for (const [node, separate] of saved.separateNodes) this.#separateNodes.set(node, separate);
    this.addedSinceBoot = saved.addedSinceBoot;
  }

  /** ACPI announced new memory: it is registered offline, unless the policy refuses it, which the log tells. */
  #added(range: MemoryRange): void {
    try {
      // Memory that went while it was in use is still known, and its pages are.
      if (this.#isKnown(range)) throw this.#refusal('EEXIST', 'memory-known', range, 'is System RAM already');
      this.#register(range, 'acpi');
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.#log.err(
        `hot-added memory ${formatRange(range)} refused: ${error.reason.text}`,
        'hot-add-refused',
      );
      this.#refused = [...this.#refused, { range, why: error.reason }];
      return;
    }
    this.#log.info(`hot-added memory ${formatRange(range)} on node ${range.node}, offline`, 'hot-add');
  }

  #isKnown(range: AddressRange): boolean {
    const known = [...this.#memblock.filter(({ kind }) => kind === 'ram'), ...this.#offline];
    return known.some((region) => overlaps(region, range));
  }

  /** Makes memory known, offline. Throws EPERM where the policy refuses it. */
  #register(range: MemoryRange, source: MemorySource): void {
    const { policy, memlist } = this.#state();
    checkMayAdd(range, memlist, policy);
    this.addedSinceBoot = true;
    this.#removed = without(this.#removed, range);
    this.#refused = this.#refused.filter((refused) => !overlaps(refused.range, range));
    const isSeparate = policy === 'separate-node' && memlist.length > 0 && !isInMemlist(range, memlist);
    const node = isSeparate ? this.#separateNode(range.node) : range.node;
    const { start, end } = range;
    this.#offline = mergeMemblock([...this.#offline, { start, end, node, kind: 'ram', source }]);
  }

  #separateNode(node: number): number {
    const known = this.#separateNodes.get(node);
    if (known !== undefined) return known;
    const taken = [...this.#state().plugged, ...this.#memblock, ...this.#offline].map((range) => range.node);
    const separate = Math.max(...taken, ...this.#separateNodes.values()) + 1;
    this.#separateNodes.set(node, separate);
    return separate;
  }

  /** ACPI took memory away: pages in use go with it, and the log says so. */
  #removedBy(range: MemoryRange): void {
    const where = formatRange(range);
    const refused = this.#refused.filter((candidate) => overlaps(candidate.range, range));
    if (refused.length > 0) {
      this.#refused = this.#refused.filter((candidate) => !refused.includes(candidate));
      this.#log.info(`memory ${where} removed`, 'hot-remove');
      return;
    }
    if (this.#offline.some((region) => contains(region, range))) {
      this.#gone(range);
      this.#log.info(`memory ${where} removed`, 'hot-remove');
      return;
    }
    try {
      this.goOffline(range);
      this.#gone(range);
      this.#log.warn(`memory ${where} removed without having been offline`, 'hot-remove');
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.#log.err(`memory ${where} removed while in use: ${error.reason.text}`, 'hot-remove-in-use');
    }
  }

  /** Offline memory is no longer there; what takes its place has not failed. */
  #gone(range: MemoryRange): void {
    const { start, end } = range;
    const going = this.#offline.find((region) => contains(region, range))!;
    this.#offline = without(this.#offline, range);
    this.#removed = mergeMemblock([...this.#removed, { ...going, start, end }]);
    this.#allocator.replaced(range);
  }

  #align(range: AddressRange): void {
    if (range.start % this.blockSize === 0 && range.end % this.blockSize === 0 && range.start < range.end)
      return;
    const what = `is not made of whole memory blocks of ${this.blockSize} bytes`;
    throw this.#refusal('EINVAL', 'memory-block-alignment', range, what, { blockSize: this.blockSize });
  }

  #refusal(
    errno: ConstructorParameters<typeof KernelError>[0],
    code: string,
    { start, end }: AddressRange,
    what: string,
    data: Record<string, unknown> = {},
  ): KernelError {
    const text = `memory ${formatRange({ start, end })} ${what}`;
    return new KernelError(errno, code, text, { range: { start, end }, ...data });
  }
}
