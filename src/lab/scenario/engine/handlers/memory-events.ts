/** Memory that comes, goes, and fails. */
import { contains, formatRange, overlaps } from '../../../../abi/address.ts';
import { KernelError } from '../../../../abi/errno.ts';
import type { MemoryRange } from '../../../../machine/description.ts';
import type { ScenarioHost } from '../scenario-host.ts';
import type { Handlers } from './handler.ts';

/** @internal */
export const MEMORY_EVENTS: Handlers<
  'hot-add' | 'hot-remove' | 'online' | 'offline' | 'kmem-bind' | 'kmem-unbind' | 'memory-error'
> = {
  'hot-add': (host, event) => wanted(host, host.area(event), (range) => plugIn(host, range)),
  'hot-remove': (host, event) => {
    const range = host.area(event);
    const { machine } = host.host;
    if (!machine.presentMemory.some((present) => contains(present, range))) throw absent(range);
    machine.hotRemoveMemory(range);
    loseTds(host, range);
  },
  online: (host, event) => wanted(host, host.area(event), (range) => host.kernel.onlineMemory(range)),
  offline: (host, event) => host.kernel.offlineMemory(host.area(event)),
  'kmem-bind': (host, event) =>
    wanted(host, host.area(event), async (range) => {
      plugIn(host, range);
      await host.kernel.onlineMemory(range);
    }),
  'kmem-unbind': (host, event) => host.kernel.offlineMemory(host.area(event)),
  'memory-error': (host, event) => {
    void host;
    void event;
  },
};

/** What the host wants to use: a refusal is memory that it has and cannot use. */
async function wanted(
  host: ScenarioHost,
  range: MemoryRange,
  use: (range: MemoryRange) => void | Promise<void>,
): Promise<void> {
  const { refusedMemory } = host;
  const index = refusedMemory.findIndex((refused) => overlaps(refused, range));
  try {
    await use(range);
    if (index >= 0) refusedMemory.splice(index, 1);
  } catch (error) {
    if (index < 0) refusedMemory.push(range);
    throw error;
  }
}

function plugIn({ host, kernel }: ScenarioHost, range: MemoryRange): void {
  const { machine } = host;
  if (machine.presentMemory.some((present) => overlaps(present, range)))
    throw new KernelError('EEXIST', 'memory-present', `memory ${formatRange(range)} is there already`);
  machine.hotAddMemory(range);
  if (kernel.hotplug.offline.some((region) => contains(region, range))) return;
  const line = kernel.log.entries.findLast(({ code }) => code === 'hot-add-refused');
  throw new KernelError('EPERM', 'hot-add-refused', line?.text ?? 'the hot-add was refused');
}

function absent(range: MemoryRange): KernelError {
  return new KernelError('ENODEV', 'memory-absent', `memory ${formatRange(range)} is not there`);
}

/** TDs that have pages in memory that went. */
function loseTds(host: ScenarioHost, range: MemoryRange): void {
  for (const td of [...host.living()]) {
    const lost = td.lostWith(range.start, range.end);
    if (lost === null) continue;
    const text = `${lost === 'memory' ? 'memory' : 'a control structure'} of the TD was in ${formatRange(range)}, which is gone`;
    host.kill(td, { code: 'td-memory-gone', text, data: { start: range.start, end: range.end } });
  }
}
