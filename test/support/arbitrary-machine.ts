/** Random machines: nodes, holes, odd alignments, CMRs that fit the memory or do not, KeyIDs and module releases. */
import fc from 'fast-check';
import { type AddressRange, GIB, MIB, PAGE_4K, TIB } from '../../src/abi/address.ts';
import type { E820Entry, MachineDescription, MemoryRange, SratEntry } from '../../src/machine/description.ts';
import { RELEASES } from '../../src/module/releases.ts';

/** Sizes as the draws that make them interesting: page-odd, 2 MiB-odd and whole GiB. */
const size = fc.oneof(
  fc.integer({ min: 1, max: 64 }).map((pages) => pages * PAGE_4K),
  fc.integer({ min: 1, max: 700 }).map((n) => n * 2 * MIB + PAGE_4K),
  fc.integer({ min: 1, max: 6 }).map((n) => n * GIB),
);

const block = fc.record({
  gap: fc.oneof(fc.constant(0), size),
  bytes: size,
  covered: fc.integer({ min: 0, max: 9 }),
});

/** Blocks so far apart that each needs a TDMR of its own. */
const farBlock = fc.record({
  gap: fc.integer({ min: 1, max: 2 }).map((n) => n * GIB),
  bytes: fc.integer({ min: 1, max: 200 }).map((n) => n * 2 * MIB + PAGE_4K),
  covered: fc.constant(9),
});

/** Machines that survey's validation accepts; whether TDX comes up on them is another matter. */
export const arbitraryMachine: fc.Arbitrary<MachineDescription> = fc
  .record({
    nodes: fc.integer({ min: 1, max: 4 }),
    splinters: fc.array(
      fc.record({ at: fc.integer({ min: 257, max: 0x7_0000 }), pages: fc.integer({ min: 1, max: 300 }) }),
      { maxLength: 24 },
    ),
    blocks: fc.oneof(
      { weight: 4, arbitrary: fc.array(block, { minLength: 1, maxLength: 10 }) },
      { weight: 1, arbitrary: fc.array(farBlock, { minLength: 58, maxLength: 70 }) },
    ),
    exactCmrs: fc.integer({ min: 0, max: 3 }),
    mktme: fc.constantFrom(0, 15, 31, 63),
    tdx: fc.constantFrom(0, 1, 2, 16, 32, 64),
    width: fc.constantFrom(48, 52),
    module: fc.constantFrom(...RELEASES.map((release) => release.version), '1.5.25', '1.5.25', null),
    cpuModel: fc.constantFrom('sapphire-rapids' as const, 'granite-rapids' as const),
  })
  .map((draw) => {
    const low: AddressRange = { start: 0, end: 0x7000_0000 };
    const memory: MemoryRange[] = [{ ...low, node: 0, kind: 'ram', state: 'present' }];
    const cmrs: AddressRange[] = [{ start: MIB, end: low.end }];
    let at = 4 * GIB;
    for (const [i, { gap, bytes, covered }] of draw.blocks.entries()) {
      const start = at + gap;
      const end = start + bytes;
      memory.push({ start, end, node: i % draw.nodes, kind: 'ram', state: 'present' });
      // Most firmware reports all memory; some draws leave a range or its tail out.
      if (draw.exactCmrs > 0 || covered > 1) cmrs.push({ start, end });
      else if (covered === 1 && bytes > PAGE_4K) cmrs.push({ start, end: end - PAGE_4K });
      at = end;
    }
    const e820 = splinteredLow(draw.splinters);
    const srat: SratEntry[] = [];
    for (const { start, end, node } of memory) {
      if (start > 0) e820.push({ start, end, type: 'usable' });
      srat.push({ start, end, node, proximityDomain: node, hotplug: false, nonVolatile: false });
    }
    return {
      name: 'random machine',
      cpuModel: draw.cpuModel,
      physicalAddressBits: draw.width,
      processors: Array.from({ length: draw.nodes * 2 }, (_, i) => ({
        apicId: (i >> 1) * 128 + (i & 1),
        package: i >> 1,
        node: i >> 1,
        present: true,
      })),
      memory: mergeTouching(memory),
      e820,
      srat: mergeTouching(srat),
      cmrs: mergeTouching(cmrs).slice(0, 32),
      keyIds: draw.tdx === 0 ? null : { mktme: draw.mktme, tdx: draw.tdx },
      seamrr: { start: TIB, end: TIB + 256 * MIB },
      module: draw.module,
      seamLoader: { version: '1.5.00', remainingUpdates: 10 },
    };
  });

/** The first 2 GiB as firmware likes to leave them: legacy holes and reserved pieces between usable memory. */
function splinteredLow(splinters: readonly { at: number; pages: number }[]): E820Entry[] {
  const low: E820Entry[] = [
    { start: 0, end: 0x9_f000, type: 'usable' },
    { start: 0x9_f000, end: MIB, type: 'reserved' },
  ];
  let at = MIB;
  for (const { at: pfn, pages } of [...splinters].sort((a, b) => a.at - b.at)) {
    const start = pfn * PAGE_4K;
    const end = Math.min(start + pages * PAGE_4K, 0x7000_0000);
    if (start < at || start >= end) continue;
    if (start > at) low.push({ start: at, end: start, type: 'usable' });
    low.push({ start, end, type: 'reserved' });
    at = end;
  }
  if (at < 0x7000_0000) low.push({ start: at, end: 0x7000_0000, type: 'usable' });
  return low;
}

function mergeTouching<T extends AddressRange & { readonly node?: number }>(ranges: readonly T[]): T[] {
  const merged: T[] = [];
  for (const range of ranges) {
    const last = merged.at(-1);
    if (last !== undefined && last.end === range.start && last.node === range.node) {
      merged[merged.length - 1] = { ...last, end: range.end };
    } else merged.push(range);
  }
  return merged;
}
