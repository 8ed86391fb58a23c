/**
 * Random machines off the beaten track: nodes without processors or memory, absent processors, announced and
 * persistent memory, maps and SRATs that leave things out, few pages, many KeyIDs, narrow addresses, no SEAM range.
 */
import fc from 'fast-check';
import { type AddressRange, GIB, KIB, MIB, PAGE_4K } from '../../src/abi/address.ts';
import {
  type E820Type,
  keyIdBits,
  type MachineDescription,
  type MemoryKind,
  type MemoryRange,
  type ProcessorDescription,
  type SratEntry,
} from '../../src/machine/description.ts';
import { RELEASES } from '../../src/module/releases.ts';

/** What kinds of memory are in the firmware's map. */
const E820_OF_KIND: Readonly<Record<MemoryKind, E820Type>> = {
  ram: 'usable',
  'legacy-pmem': 'legacy-pmem',
  nvdimm: 'pmem',
  cxl: 'soft-reserved',
  'soft-reserved': 'soft-reserved',
};

const NODES = 6;

const bytes = fc.oneof(
  fc.integer({ min: 1, max: 40 }).map((pages) => pages * PAGE_4K),
  fc.integer({ min: 1, max: 400 }).map((n) => n * 2 * MIB + PAGE_4K),
  fc.integer({ min: 1, max: 3 }).map((n) => n * GIB),
);

const range = fc.record({
  gap: fc.oneof(fc.constant(0), bytes),
  bytes,
  node: fc.integer({ min: 0, max: NODES - 1 }),
  kind: fc.constantFrom<MemoryKind>(
    'ram',
    'ram',
    'ram',
    'ram',
    'legacy-pmem',
    'nvdimm',
    'cxl',
    'soft-reserved',
  ),
  state: fc.constantFrom<MemoryRange['state']>('present', 'present', 'present', 'hot-pluggable'),
  /** Which of the firmware's tables mention it. */
  inMap: fc.integer({ min: 0, max: 9 }).map((n) => n > 0),
  inSrat: fc.integer({ min: 0, max: 5 }).map((n) => n > 0),
  inCmrs: fc.integer({ min: 0, max: 9 }).map((n) => n > 0),
  /** Bytes that the map leaves out at each end, as firmware that does not care for pages. */
  ragged: fc.constantFrom(0, 0, 0, 0, 512, 0x600),
});

const processor = fc.record({
  package: fc.integer({ min: 0, max: 7 }),
  node: fc.integer({ min: 0, max: NODES - 1 }),
  present: fc.integer({ min: 0, max: 4 }).map((n) => n > 0),
});

/** What lies below 1 MiB: all of it, the usual 640 KiB, memory that crosses the border, or nothing. */
const LOW_ENDS = [640 * KIB, 640 * KIB, MIB, 4 * MIB, 0] as const;

export const arbitraryOddMachine: fc.Arbitrary<MachineDescription> = fc
  .record({
    lowEnd: fc.constantFrom(...LOW_ENDS),
    low: fc.array(range, { maxLength: 6 }),
    high: fc.array(range, { maxLength: 8 }),
    processors: fc.array(processor, { minLength: 1, maxLength: 12 }),
    /** Reserved pages that the kernel learnt of beside the map (`memmap=`). */
    overlays: fc.array(fc.record({ at: fc.nat(0x2_0000), pages: fc.integer({ min: 1, max: 64 }) }), {
      maxLength: 3,
    }),
    keyIds: fc.oneof(
      { weight: 4, arbitrary: fc.constantFrom([63, 64], [31, 32], [0, 2]) },
      { weight: 1, arbitrary: fc.constantFrom([63, 1], [63, 0], [64, 1984], [64, 1985], [100, 3000]) },
    ),
    biosOff: fc.integer({ min: 0, max: 19 }).map((n) => n === 0),
    width: fc.constantFrom(52, 52, 52, 48, 46, 44),
    seamOff: fc.integer({ min: 0, max: 9 }).map((n) => n === 0),
    loader: fc.boolean(),
    module: fc.constantFrom(
      ...RELEASES.map((release) => release.version),
      '1.5.25',
      '1.5.25',
      '1.5.24',
      null,
    ),
    cpuModel: fc.constantFrom('sapphire-rapids' as const, 'sierra-forest' as const),
  })
  .map((draw) => {
    const [mktme = 0, tdx = 0] = draw.keyIds;
    const keyIds = draw.biosOff ? null : { mktme, tdx };
    const limit = 2 ** (draw.width - keyIdBits(keyIds));
    const ranges = [
      ...place(draw.low, MIB + 8 * MIB, Math.min(2 * GIB, limit)),
      ...place(draw.high, 4 * GIB, limit),
    ];
    if (draw.lowEnd > 0) ranges.unshift({ ...ALWAYS, start: 0, end: draw.lowEnd, inCmrs: false });
    // A machine without any memory is none.
    if (!ranges.some(({ state }) => state === 'present')) {
      ranges.unshift({ ...ALWAYS, start: 4 * MIB, end: 5 * MIB, inCmrs: true });
      ranges.sort((a, b) => a.start - b.start);
    }
    const present = ranges.filter(({ state }) => state === 'present');
    return {
      name: 'odd machine',
      cpuModel: draw.cpuModel,
      physicalAddressBits: draw.width,
      processors: someonePresent(
        draw.processors.map((cpu, i) => ({ ...cpu, apicId: cpu.package * 256 + i })),
      ),
      memory: ranges.map(({ start, end, node, kind, state }) => ({ start, end, node, kind, state })),
      e820: withReserved(
        present
          .filter(({ inMap }) => inMap)
          .map(({ start, end, kind, ragged }) => ({
            start: start === 0 ? 0 : start + ragged,
            end: end - ragged,
            type: E820_OF_KIND[kind],
          })),
        draw.overlays.map(({ at, pages }) => ({ start: at * PAGE_4K, end: (at + pages) * PAGE_4K })),
      ),
      srat: ranges
        .filter(({ inSrat }) => inSrat)
        .map(
          ({ start, end, node, kind, state }): SratEntry => ({
            start,
            end,
            node,
            proximityDomain: node,
            hotplug: state === 'hot-pluggable',
            nonVolatile: kind === 'nvdimm',
          }),
        ),
      cmrs: joined(present.filter(({ inCmrs }) => inCmrs)).slice(0, 32),
      keyIds,
      seamrr: draw.seamOff ? null : { start: limit - 32 * MIB, end: limit },
      module: draw.module,
      seamLoader: draw.loader ? { version: '1.5.00', remainingUpdates: 10 } : null,
    };
  });

type Placed = Omit<typeof range extends fc.Arbitrary<infer T> ? T : never, 'gap' | 'bytes'> & AddressRange;

const ALWAYS = { node: 0, kind: 'ram', state: 'present', inMap: true, inSrat: true, ragged: 0 } as const;

/** The drawn ranges one after another from `start`, as far as they fit below `limit`. */
function place(
  draws: readonly (typeof range extends fc.Arbitrary<infer T> ? T : never)[],
  start: number,
  limit: number,
): Placed[] {
  const placed: Placed[] = [];
  let at = start;
  for (const { gap, bytes: size, ...rest } of draws) {
    const end = at + gap + size;
    // The top of the address space is the SEAM range's.
    if (end > limit - 32 * MIB) break;
    placed.push({ ...rest, start: at + gap, end });
    at = end;
  }
  return placed;
}

function someonePresent(processors: readonly ProcessorDescription[]): readonly ProcessorDescription[] {
  const [first, ...rest] = processors;
  return processors.some(({ present }) => present) ? processors : [{ ...first!, present: true }, ...rest];
}

function withReserved(
  map: readonly (AddressRange & { readonly type: E820Type })[],
  reserved: readonly AddressRange[],
): MachineDescription['e820'] {
  return [...map, ...reserved.map(({ start, end }) => ({ start, end, type: 'reserved' as const }))];
}

function joined(ranges: readonly AddressRange[]): AddressRange[] {
  const out: AddressRange[] = [];
  for (const { start, end } of ranges) {
    const last = out.at(-1);
    if (last?.end === start) out[out.length - 1] = { start: last.start, end };
    else out.push({ start, end });
  }
  return out;
}
