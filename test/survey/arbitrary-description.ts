import fc from 'fast-check';
import { MIB } from '../../src/abi/address.ts';
import type { MachineDescription } from '../../src/machine/description.ts';

const MEMORY_BASE = 4096 * MIB;
const SLOT = 1024 * MIB;

/** Descriptions of machines that can exist: slots of memory with gaps, each perhaps a CMR. */
export const arbitraryDescription: fc.Arbitrary<MachineDescription> = fc
  .record({
    name: fc.string(),
    cpuModel: fc.constantFrom('sapphire-rapids', 'emerald-rapids', 'granite-rapids', 'sierra-forest'),
    slots: fc.array(
      fc.record({
        used: fc.integer({ min: 1, max: 16 }).map((pieces) => (SLOT / 16) * pieces - (pieces % 3) * 4096),
        node: fc.nat({ max: 7 }),
        kind: fc.constantFrom('ram', 'legacy-pmem', 'nvdimm', 'cxl', 'soft-reserved'),
        plugged: fc.boolean(),
        cmr: fc.boolean(),
        hotplug: fc.boolean(),
      }),
      { minLength: 1, maxLength: 20 },
    ),
    processors: fc.uniqueArray(fc.nat({ max: 127 }), { minLength: 1, maxLength: 10 }),
    keyIds: fc.option(fc.record({ mktme: fc.nat({ max: 100 }), tdx: fc.nat({ max: 100 }) })),
    module: fc.option(fc.constantFrom('1.0', '1.5.25')),
    seamrr: fc.boolean(),
    seamLoader: fc.option(
      fc.record({ version: fc.constantFrom('1.5.00', '2.0.11'), remainingUpdates: fc.nat() }),
    ),
  } as const)
  .map((parts): MachineDescription => {
    const slots = parts.slots.map((slot, i) => {
      const start = MEMORY_BASE + i * 2 * SLOT;
      // One slot at least is populated.
      return { ...slot, plugged: slot.plugged || i === 0, range: { start, end: start + slot.used } };
    });
    const top = MEMORY_BASE + slots.length * 2 * SLOT;
    return {
      name: parts.name,
      cpuModel: parts.cpuModel,
      physicalAddressBits: 52,
      processors: parts.processors.map((apicId, i) => ({
        apicId: (i % 3) * 128 + apicId,
        package: i % 3,
        node: i % 5,
        present: i !== 1,
      })),
      memory: slots.map(({ range, node, kind, plugged }) => ({
        ...range,
        node,
        kind,
        state: plugged ? 'present' : 'hot-pluggable',
      })),
      e820: slots.map(({ range, kind, plugged }) => ({
        ...range,
        type: kind === 'ram' && plugged ? 'usable' : 'reserved',
      })),
      srat: slots.map(({ range, node, hotplug }) => ({
        ...range,
        node,
        proximityDomain: node + 10,
        hotplug,
        nonVolatile: false,
      })),
      cmrs: slots.flatMap(({ range, plugged, cmr }) => (plugged && cmr ? [range] : [])),
      keyIds: parts.keyIds,
      seamrr: parts.seamrr ? { start: top, end: top + 32 * MIB } : null,
      module: parts.module,
      seamLoader: parts.seamLoader,
    };
  });
