import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { measureImage } from '../../../src/vmm/measure-image.ts';
import { sampleImage } from '../../../src/vmm/sample-image.ts';
import { checkImage } from '../../../src/vmm/tdvf/check-image.ts';
import { anySection, imageWith, type SectionFields } from '../arbitrary-image.ts';

const SOUND = sampleImage().sections.slice(0, 5);
const BFV: SectionFields = SOUND[0]!;
const TEMP_MEM: SectionFields = SOUND[2]!;
const TD_HOB: SectionFields = SOUND[3]!;
const PERM_MEM: SectionFields = { ...TEMP_MEM, type: 4, address: 0x100_0000, attributes: 2 };
const PAYLOAD: SectionFields = { ...TEMP_MEM, type: 5, address: 0x200_0000 };
const PARAMETERS: SectionFields = { ...TEMP_MEM, type: 6, address: 0x300_0000, memoryBytes: 4096 };
const TD_INFO: SectionFields = { ...BFV, type: 7, address: 0, memoryBytes: 0, attributes: 0, fileBytes: 32 };

/** A sound image with one section replaced. */
const but = (index: number, changes: Partial<SectionFields>): SectionFields[] =>
  SOUND.map((section, i) => (i === index ? { ...section, ...changes } : section));

describe('checkImage', () => {
  it('finds nothing in a sound image', () => {
    expect(checkImage(imageWith(SOUND))).toEqual([]);
    expect(checkImage(imageWith([...SOUND].reverse()))).toEqual([]);
  });

  it.each<[what: string, sections: SectionFields[], text: RegExp]>([
    ['an unknown type', but(2, { type: 9 }), /section 2 \(type 9\) has a type that nobody knows/],
    ['an address within a page', but(3, { address: 0x80_9100 }), /begins at 0x809100/],
    ['half a page of memory', but(3, { memoryBytes: 0x800 }), /0x800 bytes of memory, no multiple of 4 KiB/],
    ['more bytes than memory', but(0, { memoryBytes: 0x1000 }), /0xc000 bytes in the file, but only 0x1000/],
    [
      'memory beyond private addresses',
      but(2, { address: 2 ** 51 - 4096 }),
      /reaches beyond 0x8000000000000/,
    ],
    [
      'measured bytes behind the file',
      but(0, { fileOffset: 0x5000 }),
      /bytes \[0x5000, 0x11000\), and the file ends at 0x10000; the image is cut/,
    ],
    [
      'only the code of a firmware',
      but(0, { fileBytes: 0x1_0000, memoryBytes: 0x1_0000 }),
      /code half of a firmware in two files/,
    ],
    ['pages both measured and later', but(0, { attributes: 3 }), /both attributes/],
    ['more memory than any firmware', but(2, { memoryBytes: 2 ** 31 }), /add 2 GiB before the TD runs/],
  ])('tells no MRTD for %s', (_, sections, text) => {
    const { mrtd, findings } = measureImage(imageWith(sections));
    expect(mrtd).toBeNull();
    expect(findings.filter(({ fatal }) => fatal).map((finding) => finding.text)).toEqual([
      expect.stringMatching(text),
    ]);
  });

  it.each<[what: string, sections: SectionFields[], text: RegExp]>([
    [
      'bytes behind the file that nobody measures',
      but(1, { fileOffset: 0xf000 }),
      /section 1 \(CFV\) is outside the file/,
    ],
    [
      'two sections on one page',
      but(2, { address: 0x80_a000 }),
      /section 3 \(TD_HOB\) .* and section 2 .* overlap/,
    ],
    ['firmware without MR.EXTEND', but(0, { attributes: 0 }), /lacks the attribute MR\.EXTEND/],
    [
      'variables with MR.EXTEND',
      but(1, { attributes: 1 }),
      /MR\.EXTEND, which such sections should not have/,
    ],
    ['a measured HOB list', but(3, { attributes: 1 }), /holds the VMM's list of memory: MRTD depends on it/],
    ['a measured kernel', [...SOUND, { ...PAYLOAD, attributes: 1 }], /holds the kernel that the VMM loads/],
    ['firmware that comes too late', but(0, { attributes: 2 }), /its pages are not added/],
    [
      'permanent memory that is added',
      [...SOUND, { ...PERM_MEM, attributes: 0 }],
      /lacks the attribute PAGE\.AUG/,
    ],
    ['reserved attributes', but(2, { attributes: 0x8000_0004 }), /reserved attribute bits 0x80000004/],
    ['no bytes of the firmware', but(1, { fileBytes: 0 }), /no bytes in the file; QEMU refuses it/],
    ['bytes for memory', but(2, { fileBytes: 16 }), /bytes in the file, which VMMs do not load/],
    ['more memory than bytes', but(1, { fileBytes: 0x1000 }), /QEMU goes on reading the file/],
    [
      'bytes that begin within a page',
      but(1, { fileOffset: 0x10 }),
      /begins at 0x10 of the file, not on a page/,
    ],
    ['no memory', but(2, { memoryBytes: 0 }), /no memory; KVM refuses/],
    [
      'memory for a description',
      [...SOUND, { ...TD_INFO, memoryBytes: 4096 }],
      /asks for memory or attributes/,
    ],
    ['no firmware', SOUND.slice(1), /there is no BFV/],
    ['firmware elsewhere', but(0, { address: 0x4000_0000 }), /no BFV lies at 0xfffffff0/],
    ['no list of memory', SOUND.filter(({ type }) => type !== 2), /neither a TD_HOB nor a PermMem section/],
    ['two lists', [...SOUND, { ...TD_HOB, address: 0x90_0000 }], /2 TD_HOB sections, where one is allowed/],
    ['parameters for no kernel', [...SOUND, PARAMETERS], /PayloadParam section, but no Payload/],
    [
      'sections that QEMU does not know',
      [...SOUND, PERM_MEM, TD_INFO],
      /no TD with PermMem, TD_INFO sections/,
    ],
  ])('warns of %s and tells an MRTD', (_, sections, text) => {
    const { mrtd, findings } = measureImage(imageWith(sections));
    expect([...mrtd!.values()].every((digits) => /^[0-9a-f]{96}$/.test(digits))).toBe(true);
    expect(findings.map((finding) => finding.text)).toContainEqual(expect.stringMatching(text));
  });

  it('warns of a size that QEMU does not take', () => {
    const [finding, ...more] = checkImage(imageWith(SOUND, 0x1_1000));
    expect(finding).toMatchObject({ fatal: false, text: expect.stringContaining('multiples of 64 KiB') });
    expect(more).toEqual([]);
  });

  it('finds all sections sound that a TD shim has', () => {
    const shim = [...SOUND.filter(({ type }) => type !== 2), PERM_MEM, PAYLOAD, PARAMETERS, TD_INFO];
    const texts = checkImage(imageWith(shim)).map(({ text }) => text);
    expect(texts.every((text) => text.startsWith('QEMU builds no TD'))).toBe(true);
  });

  it('says sentences about any table, and tells an MRTD when none is fatal', () => {
    fc.assert(
      fc.property(fc.array(anySection, { minLength: 1, maxLength: 8 }), (sections) => {
        const image = imageWith(sections);
        const { mrtd, findings } = measureImage(image, ['one-pass']);
        expect(mrtd === null).toBe(findings.some(({ fatal }) => fatal));
        for (const { text } of findings) expect(text).not.toMatch(/undefined|NaN|\n|0x-/);
      }),
    );
  });
});
