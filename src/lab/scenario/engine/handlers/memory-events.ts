/** Memory that comes, goes, and fails. */
import { type AddressRange, contains, formatRange, overlaps } from '../../../../abi/address.ts';
import { KernelError } from '../../../../abi/errno.ts';
import type { MemoryRange } from '../../../../machine/description.ts';
import { noSuch } from '../outcome.ts';
import type { ScenarioHost } from '../scenario-host.ts';
import type { EventOf, Handlers } from './handler.ts';

/** @internal */
export const MEMORY_EVENTS: Handlers<
  'hot-add' | 'hot-remove' | 'online' | 'offline' | 'kmem-bind' | 'kmem-unbind' | 'memory-error'
> = {
  'hot-add': (host, event) => wanted(host, host.area(event), (range) => plugIn(host, range)),
  'hot-remove': async (host, event) => {
    const range = host.area(event);
    const { machine } = host.host;
    if (!machine.presentMemory.some((present) => contains(present, range)))
      throw new KernelError('ENODEV', 'memory-absent', `memory ${formatRange(range)} is not there`);
    const isOnline = host.kernel.memblock.some((region) => region.kind === 'ram' && overlaps(region, range));
    if (isOnline && !event.surprise) await host.kernel.offlineMemory(range);
    machine.hotRemoveMemory(range);
    host.lose(range);
  },
  online: (host, event) =>
    wanted(host, host.area(event), (range) => host.kernel.onlineMemory(range, event.zone)),
  offline: (host, event) => host.kernel.offlineMemory(host.area(event)),
  'kmem-bind': (host, event) =>
    wanted(host, host.area(event), async (range) => {
      await host.kernel.kmemAdd(range);
      await host.kernel.onlineMemory(range, event.zone);
    }),
  'kmem-unbind': async (host, event) => {
    const range = host.area(event);
    if (host.kernel.memblock.some((region) => region.kind === 'ram' && contains(region, range)))
      await host.kernel.offlineMemory(range);
    await host.kernel.kmemRemove(range);
  },
  'memory-error': async (host, event) => {
    await host.kernel.memoryFailure(failing(host, event));
  },
};

/** What the host wants to use: a refusal is memory that it has and cannot use. */
async function wanted(
  host: ScenarioHost,
  range: MemoryRange,
  use: (range: MemoryRange) => void | Promise<void>,
): Promise<void> {
  const isSame = (refused: AddressRange): boolean => overlaps(refused, range);
  try {
    await use(range);
    const index = host.refusedMemory.findIndex(isSame);
    if (index >= 0) host.refusedMemory.splice(index, 1);
  } catch (error) {
    // What it has already it is not refused.
    const isKnown = host.kernel.memblock.some((region) => region.kind === 'ram' && overlaps(region, range));
    const isThere = host.host.machine.presentMemory.some((present) => overlaps(present, range));
    if (isThere && !isKnown && !host.refusedMemory.some(isSame)) host.refusedMemory.push(range);
    throw error;
  }
}

function plugIn({ host, kernel }: ScenarioHost, range: MemoryRange): void {
  const { machine } = host;
  if (machine.presentMemory.some((present) => overlaps(present, range)))
    throw new KernelError('EEXIST', 'memory-present', `memory ${formatRange(range)} is there already`);
  machine.hotAddMemory(range);
  const refused = kernel.hotplug.refused.find((one) => overlaps(one.range, range));
  if (refused === undefined) return;
  const { code, text, data } = refused.why;
  throw new KernelError('EPERM', code, text, { ...data });
}

/** Address of the page that fails: one of the TD's, or one of an area. */
function failing(host: ScenarioHost, event: EventOf<'memory-error'>): number {
  const { td: name, memory, offset = 0, draw } = event;
  if (memory !== undefined) return host.area({ memory, offset }).start;
  const { chunks } = host.findTd(name!, draw).memory;
  const chunk = chunks[Math.floor(draw * chunks.length)];
  if (chunk === undefined) throw noSuch('private-memory', name!);
  return chunk.address;
}
