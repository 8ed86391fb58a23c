/** Random TDVF images: sound ones, and section tables of any kind. */
import * as fc from 'fast-check';
import { KIB, PAGE_4K } from '../../src/abi/address.ts';
import { readTdvf, type TdvfImage } from '../../src/vmm/tdvf/image.ts';
import type { TdvfSection } from '../../src/vmm/tdvf/section.ts';
import { putTdvfMetadata } from '../../src/vmm/tdvf/write-image.ts';

export type SectionFields = Omit<TdvfSection, 'index'>;

/** 64 KiB that begin with bytes of their own and end with this table. */
export function imageWith(sections: readonly SectionFields[], bytes = 64 * KIB): TdvfImage {
  const file = Uint8Array.from({ length: bytes }, (_, i) => (i * 7 + Math.floor(i / 256)) & 0xff);
  putTdvfMetadata(file, sections);
  return readTdvf('test.fd', file);
}

/** A section whose fields have any value that the table can hold and a guest can have. */
export const anySection: fc.Arbitrary<SectionFields> = fc.record({
  type: fc.oneof(fc.nat(9), fc.nat(0xffff_ffff)),
  fileOffset: fc.oneof(fc.nat(64 * KIB), fc.nat(0xffff_ffff)),
  fileBytes: fc.oneof(fc.nat(64 * KIB), fc.nat(0xffff_ffff)),
  address: fc.oneof(
    fc.nat(2 ** 20).map((page) => page * PAGE_4K),
    fc.maxSafeNat().map((n) => n % 2 ** 52),
  ),
  memoryBytes: fc.oneof(
    fc.nat(40).map((page) => page * PAGE_4K),
    fc.maxSafeNat().map((n) => n % 2 ** 52),
  ),
  attributes: fc.oneof(fc.nat(3), fc.nat(0xffff_ffff)),
});

/** Sections that can be measured: pages within the file where they have bytes there, far from each other. */
export const soundSections: fc.Arbitrary<SectionFields[]> = fc
  .array(
    fc.record({
      kind: fc.constantFrom('BFV', 'CFV', 'TempMem', 'PermMem', 'Payload'),
      fileOffset: fc.nat(32 * KIB),
      fileBytes: fc.integer({ min: 1, max: 16 * KIB }),
      morePages: fc.nat(2),
      measured: fc.boolean(),
    }),
    { minLength: 1, maxLength: 6 },
  )
  .map((list) =>
    list.map(({ kind, fileOffset, fileBytes, morePages, measured }, i): SectionFields => {
      const type = { BFV: 0, CFV: 1, TempMem: 3, PermMem: 4, Payload: 5 }[kind]!;
      const inFile = type !== 3 && type !== 4;
      const pages = Math.ceil(fileBytes / PAGE_4K) + morePages;
      return {
        type,
        fileOffset: inFile ? fileOffset : 0,
        fileBytes: inFile ? fileBytes : 0,
        address: (i + 1) * 2 ** (20 + 4 * i),
        memoryBytes: pages * PAGE_4K,
        attributes: type === 4 ? 2 : Number(measured),
      };
    }),
  );
