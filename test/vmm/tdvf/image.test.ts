import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../../src/abi/input-error.ts';
import { measureImage } from '../../../src/vmm/measure-image.ts';
import { sampleImage } from '../../../src/vmm/sample-image.ts';
import { readTdvf } from '../../../src/vmm/tdvf/image.ts';
import { anySection, imageWith } from '../arbitrary-image.ts';

const SAMPLE = sampleImage();
const { descriptorOffset } = SAMPLE;
const LENGTH = SAMPLE.bytes.length;
/** Distances from the end of the file, in bytes. */
const FOOTER_GUID = 0x30;
const TABLE_LENGTH = 0x32;
const ENTRY_GUID = 0x42;
const ENTRY_LENGTH = 0x44;
const ENTRY_OFFSET = 0x48;

/** The sample with some bytes changed, by offset from its start. */
function changed(...changes: readonly (readonly [at: number, ...values: number[]])[]): Uint8Array {
  const bytes = SAMPLE.bytes.slice();
  for (const [at, ...values] of changes) bytes.set(values, at);
  return bytes;
}

function sentence(bytes: Uint8Array): string {
  try {
    readTdvf('x.fd', bytes);
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as Error).message;
  }
  throw new Error('it was read');
}

describe('readTdvf', () => {
  it('reads the table that was written, whatever is in it', () => {
    fc.assert(
      fc.property(fc.array(anySection, { minLength: 1, maxLength: 20 }), (sections) => {
        const image = imageWith(sections);
        expect(image.foundBy).toBe('guid-table');
        expect(image.sections).toEqual(sections.map((section, index) => ({ index, ...section })));
      }),
    );
  });

  it('finds the entry behind others', () => {
    // The descriptor's entry moves up, and an entry of 32 bytes stands between it and the footer.
    const bytes = SAMPLE.bytes.slice();
    const room = 32;
    const tableStart = LENGTH - ENTRY_OFFSET;
    bytes.copyWithin(descriptorOffset - room, descriptorOffset, tableStart + 22);
    const other = tableStart + 22 - room;
    bytes.fill(0xaa, other, other + room);
    const view = new DataView(bytes.buffer);
    view.setUint32(tableStart - room, LENGTH - (descriptorOffset - room), true);
    view.setUint16(other + room - 18, room, true);
    view.setUint16(LENGTH - TABLE_LENGTH, 40 + room, true);
    expect(readTdvf('x.fd', bytes).sections).toEqual(SAMPLE.sections);
  });

  it.each([
    ['no footer', [LENGTH - FOOTER_GUID, 0]],
    ['no entry', [LENGTH - ENTRY_GUID, 0]],
  ] as const)('takes the offset of older images when there is %s', (_, change) => {
    const bytes = changed(change);
    new DataView(bytes.buffer).setUint32(LENGTH - 0x20, descriptorOffset, true);
    const image = readTdvf('x.fd', bytes);
    expect(image.foundBy).toBe('pointer');
    expect(image.sections).toEqual(SAMPLE.sections);
    expect(measureImage(image).mrtd).not.toBeNull();
    expect(measureImage(image).findings.map(({ text }) => text)).toContainEqual(
      expect.stringContaining('QEMU does not find it'),
    );
  });

  it.each([
    ['nothing', new Uint8Array(0), /not a TDVF image: 0 bytes are too few/],
    ['a few bytes', new Uint8Array(47), /not a TDVF image: 47 bytes/],
    ['zeroes', new Uint8Array(65_536), /not a TDVF image: nothing at its end/],
    ['text', new TextEncoder().encode('BIOS-e820: usable\n'.repeat(100)), /not a TDVF image/],
    ['an image cut short', SAMPLE.bytes.subarray(0, LENGTH - 4096), /not a TDVF image/],
    [
      'the end of an image',
      SAMPLE.bytes.subarray(LENGTH - 100),
      /puts the TDX metadata .* damaged or incomplete/,
    ],
    ['firmware without TDX', changed([LENGTH - ENTRY_GUID, 0]), /firmware without TDX metadata/],
    [
      'a table longer than the file',
      changed([LENGTH - TABLE_LENGTH, 0xff, 0xff]).subarray(LENGTH - 1024),
      /the table of GUIDs .* is broken/,
    ],
    ['an empty table', changed([LENGTH - TABLE_LENGTH, 0, 0]), /the table of GUIDs .* is broken/],
    ['an entry of no length', changed([LENGTH - ENTRY_LENGTH, 0, 0]), /is broken: .* given at 0xffbc/],
    ['an entry too long', changed([LENGTH - ENTRY_LENGTH, 0xff, 0]), /is broken/],
    ['an offset entry too short', changed([LENGTH - ENTRY_LENGTH, 18, 0]), /is broken/],
    ['an offset of 0', changed([LENGTH - ENTRY_OFFSET, 0, 0, 0, 0]), /0x0 bytes before the end/],
    [
      'an offset beyond the start',
      changed([LENGTH - ENTRY_OFFSET, 0, 0, 2, 0]),
      /0x20000 bytes before the end/,
    ],
    ['another signature', changed([descriptorOffset, 0x4f]), /where there is none/],
    ['version 2', changed([descriptorOffset + 8, 2]), /version 2; only version 1/],
    ['no section', changed([descriptorOffset + 12, 0]), /lists no section/],
    [
      'a length that does not fit',
      changed([descriptorOffset + 4, 17]),
      /length as 17 bytes, but 6 sections make it 208/,
    ],
    [
      'more sections than the file has',
      changed([descriptorOffset + 4, 0x10, 0, 2, 0], [descriptorOffset + 12, 0, 16, 0, 0]),
      /lists 4096 sections, more than the file has room for/,
    ],
    [
      'an address that overflows',
      changed([descriptorOffset + 16 + 8, ...new Array(8).fill(0xff)]),
      /section 0: memory address 0xffffffffffffffff is beyond any guest physical address/,
    ],
    [
      'a size that overflows',
      changed([descriptorOffset + 16 + 32 + 16, ...new Array(8).fill(0xff)]),
      /section 1: memory size 0xffffffffffffffff/,
    ],
  ])('refuses %s with one sentence', (_, bytes, expected) => {
    expect(sentence(bytes)).toMatch(expected);
    expect(sentence(bytes)).toMatch(/^x\.fd: [^\n]+$/);
  });

  it('gives a result or one sentence for any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4096 }), (bytes) => {
        expect(sentence(bytes)).toMatch(/^x\.fd: [^\n]+$/);
      }),
    );
  });

  it('gives a result or one sentence for images with bytes changed', () => {
    const at = fc.oneof(
      fc.integer({ min: descriptorOffset, max: LENGTH - 32 }),
      fc.integer({ min: 0, max: LENGTH - 1 }),
    );
    const value = fc.oneof(fc.constantFrom(0, 1, 2, 0x7f, 0x80, 0xff), fc.nat(255));
    fc.assert(
      fc.property(fc.array(fc.tuple(at, value), { minLength: 1, maxLength: 6 }), (changes) => {
        let image: ReturnType<typeof readTdvf>;
        try {
          image = readTdvf('x.fd', changed(...changes));
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
          return;
        }
        const { mrtd, findings } = measureImage(image);
        expect(mrtd === null).toBe(findings.some(({ fatal }) => fatal));
      }),
    );
  });
});
