/** The memory a kernel boots with. */
import type { MachineDescription } from '../machine/description.ts';
import { PageAllocator } from './allocator.ts';
import type { KernelConfig } from './kernel-config.ts';
import { type MemblockRegion, memblockFromFirmware } from './memblock.ts';
import { movableMemory, overrideMemoryMap } from './memory-options.ts';

/** @internal */
export interface BootMemory {
  readonly memblock: readonly MemblockRegion[];
  readonly allocator: PageAllocator;
}

/** Distance between nodes of which the firmware tells nothing. */
const REMOTE_DISTANCE = 20;

/** What the firmware's tables and the kernel's command line make of the machine's memory. @internal */
export function bootMemory(
  { e820, srat, slit }: Pick<MachineDescription, 'e820' | 'srat' | 'slit'>,
  { memmap, kernelCoreBytes }: KernelConfig,
): BootMemory {
  const memblock = memblockFromFirmware(overrideMemoryMap(e820, memmap), srat);
  const allocator = new PageAllocator(memblock, {
    movable: movableMemory(memblock, kernelCoreBytes),
    ...(slit === undefined ? {} : { distance: (from, to) => slit[from]?.[to] ?? REMOTE_DISTANCE }),
  });
  return { memblock, allocator };
}
