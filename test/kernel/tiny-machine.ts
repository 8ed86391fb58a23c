/** A small two-package, two-node machine for kernel tests: every figure is easy to check by hand. */
import { GIB, MIB } from '../../src/abi/address.ts';
import type { MachineDescription } from '../../src/machine/description.ts';

/** 3 GiB and 4 GiB of RAM on node 0 (with a gap below 4 GiB), 4 GiB on node 1; 8 private KeyIDs from 9 on. */
export const TINY: MachineDescription = {
  name: 'tiny',
  cpuModel: 'sapphire-rapids',
  physicalAddressBits: 52,
  processors: [0, 1, 2, 3].map((i) => ({
    apicId: (i >> 1) * 128 + (i & 1),
    package: i >> 1,
    node: i >> 1,
    present: true,
  })),
  memory: [
    { start: 0, end: 3 * GIB, node: 0, kind: 'ram', state: 'present' },
    { start: 4 * GIB, end: 8 * GIB, node: 0, kind: 'ram', state: 'present' },
    { start: 8 * GIB, end: 12 * GIB, node: 1, kind: 'ram', state: 'present' },
  ],
  e820: [
    { start: 0, end: 0x9f000, type: 'usable' },
    { start: 0x9f000, end: MIB, type: 'reserved' },
    { start: MIB, end: 2 * GIB, type: 'usable' },
    { start: 2 * GIB, end: 2 * GIB + 64 * MIB, type: 'acpi-nvs' },
    { start: 2 * GIB + 64 * MIB, end: 3 * GIB - 128 * MIB, type: 'usable' },
    { start: 4 * GIB, end: 12 * GIB, type: 'usable' },
  ],
  srat: [
    { start: 0, end: 8 * GIB, proximityDomain: 0, node: 0, hotplug: false, nonVolatile: false },
    { start: 8 * GIB, end: 12 * GIB, proximityDomain: 1, node: 1, hotplug: false, nonVolatile: false },
  ],
  cmrs: [
    { start: MIB, end: 2 * GIB },
    { start: 2 * GIB + 64 * MIB, end: 3 * GIB - 128 * MIB },
    { start: 4 * GIB, end: 12 * GIB },
  ],
  keyIds: { mktme: 8, tdx: 8 },
  seamrr: { start: 3 * GIB - 128 * MIB, end: 3 * GIB - 64 * MIB },
  module: '1.5.25',
  seamLoader: null,
};
