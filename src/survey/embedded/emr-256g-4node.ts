import type { E820Entry, E820Type } from '../../machine/description.ts';
import { type EmbeddedHost, machineOf } from './embedded-host.ts';

/** The map below 4 GiB without a gap: where each entry ends, and its type. */
const LOW_ENDS: readonly (readonly [number, E820Type])[] = [
  [0x0009f000, 'usable'],
  [0x00100000, 'reserved'],
  [0x5d169000, 'usable'],
  [0x5d22b000, 'acpi-data'],
  [0x5d3cf000, 'usable'],
  [0x5d46a000, 'reserved'],
  [0x5e5b3000, 'usable'],
  [0x5e5c3000, 'reserved'],
  [0x5e5d3000, 'usable'],
  [0x5e5e5000, 'reserved'],
  [0x5eb58000, 'usable'],
  [0x61358000, 'acpi-nvs'],
  [0x6172b000, 'usable'],
  [0x61795000, 'acpi-data'],
  [0x617ff000, 'usable'],
  [0x61913000, 'acpi-data'],
  [0x61999000, 'usable'],
  [0x619e0000, 'acpi-data'],
  [0x619e2000, 'usable'],
  [0x619ea000, 'reserved'],
  [0x61a27000, 'usable'],
  [0x61baf000, 'acpi-data'],
  [0x623c3000, 'usable'],
  [0x62472000, 'reserved'],
  [0x62824000, 'usable'],
  [0x63a25000, 'reserved'],
  [0x63d58000, 'usable'],
  [0x64158000, 'reserved'],
  [0x64159000, 'usable'],
  [0x64195000, 'reserved'],
  [0x6e9cf000, 'usable'],
  [0x6eccf000, 'reserved'],
  [0x6f6ff000, 'acpi-nvs'],
  [0x6f7ff000, 'acpi-data'],
  [0x6f800000, 'usable'],
  [0x90000000, 'reserved'],
];

const LOW_MAP = LOW_ENDS.map(
  ([end, type], i): E820Entry => ({ start: LOW_ENDS[i - 1]?.[0] ?? 0, end, type }),
);

/**
 * Two Emerald Rapids, 256 GiB on four nodes, with firmware that splinters low memory: 17 pieces of RAM below
 * 2 GiB leave more holes than a TDMR has reserved areas (figures: issue 135 of canonical/tdx).
 * @internal
 */
export const EMR_256G_4NODE: EmbeddedHost = {
  machine: machineOf({
    name: 'emr-256g-4node',
    cpuModel: 'emerald-rapids',
    keyIds: { mktme: 31, tdx: 32 },
    cmrs: [
      { start: 0x100000, end: 0x6f800000 },
      { start: 0x1_0000_0000, end: 0x10_7a00_0000 },
      { start: 0x10_8000_0000, end: 0x20_7c00_0000 },
      { start: 0x20_8000_0000, end: 0x30_7c00_0000 },
      { start: 0x30_8000_0000, end: 0x40_7c00_0000 },
    ],
    lowMap: LOW_MAP,
    processors: { present: 128, slots: 0, packages: 2, nodes: [0, 1, 2, 3] },
    module: '1.5.05',
  }),
  kernel: { hibernationDisabled: true },
  observed: {
    keyIds: { start: 32, end: 64 },
    module: { major: 1, minor: 5, buildDate: 20231008, buildNumber: 595 },
    initialized: false,
    failure: {
      text: 'TDMR [0x0, 0x80000000): reserved areas exhausted.',
      errno: -28,
      range: { start: 0, end: 0x80000000 },
    },
  },
  expected: { pamtKb: 1050644, maxTds: 31, tdmrs: 5, initialisesWithMemblockHoles: false },
};
