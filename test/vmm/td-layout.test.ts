import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/abi/input-error.ts';
import { measureImage } from '../../src/vmm/measure-image.ts';
import { sampleImage } from '../../src/vmm/sample-image.ts';
import { layOutTd } from '../../src/vmm/td-layout.ts';
import { imageWith, type SectionFields } from './arbitrary-image.ts';

const SAMPLE = sampleImage();
const [BFV, CFV] = SAMPLE.sections;
const PAYLOAD: SectionFields = { ...SAMPLE.sections[2]!, type: 5, address: 0x200_0000, memoryBytes: 0x2000 };
const PARAMETERS: SectionFields = { ...PAYLOAD, type: 6, address: 0x300_0000, memoryBytes: 0x1000 };
const TD_INFO: SectionFields = { ...BFV!, type: 7, address: 0, memoryBytes: 0, attributes: 0 };

describe('layOutTd', () => {
  it('adds the sections in the order of the table, with the bytes that they have', () => {
    const { regions, hobAddress } = layOutTd(SAMPLE);
    expect(regions.map(({ gpa, pages, measure, source }) => [gpa, pages, measure, source.length])).toEqual([
      [0xffff_4000, 12, true, 0xc000],
      [0xffff_0000, 4, false, 0x4000],
      [0x81_0000, 16, false, 0],
      [0x80_9000, 2, false, 0],
      [0x80_0000, 6, false, 0],
    ]);
    expect(regions[0]!.source).toEqual(SAMPLE.bytes.subarray(BFV!.fileOffset));
    expect(regions[1]!.source).toEqual(SAMPLE.bytes.subarray(0, CFV!.fileBytes));
    expect(hobAddress).toBe(0x80_9000);
  });

  it('takes kernel and parameters from the VMM, unless the image has the kernel', () => {
    const payload = Uint8Array.of(1, 2, 3);
    const parameters = new TextEncoder().encode('console=hvc0\0');
    const sources = (section: SectionFields): Uint8Array[] =>
      layOutTd(imageWith([section, PARAMETERS, TD_INFO]), { payload, parameters }).regions.map(
        ({ source }) => source,
      );
    expect(sources(PAYLOAD)).toEqual([payload, parameters]);
    const image = imageWith([{ ...PAYLOAD, fileOffset: 0x1000, fileBytes: 16 }]);
    expect(layOutTd(image, { payload }).regions[0]!.source).toEqual(image.bytes.subarray(0x1000, 0x1010));
    expect(sources({ ...PAYLOAD, memoryBytes: 0 })).toEqual([parameters]);
  });

  it('refuses contents larger than their section', () => {
    const image = imageWith([PAYLOAD]);
    expect(() => layOutTd(image, { payload: new Uint8Array(0x2001) })).toThrow(InputError);
    expect(() => layOutTd(image, { payload: new Uint8Array(0x2001) })).toThrow(
      'test.fd: section 0 (Payload) has 8192 bytes of memory, too few for 8193',
    );
  });
});

describe('sampleImage', () => {
  it('is the same every time and has nothing against it but what QEMU does not know', () => {
    expect(sampleImage()).toEqual(SAMPLE);
    const { mrtd, findings } = measureImage(SAMPLE);
    expect(findings.map(({ text }) => text)).toEqual([
      'QEMU builds no TD with PermMem sections; cloud-hypervisor and others do',
    ]);
    expect(mrtd!.get('one-pass')).toMatch(/^edbf10a745243af3/);
    expect(mrtd!.get('two-pass')).toMatch(/^7d0e89185cb4988c/);
  });

  it('starts at the reset vector with instructions that wait', () => {
    const start = SAMPLE.bytes.length - 16;
    expect([...SAMPLE.bytes.subarray(start, start + 4)]).toEqual([0xf3, 0x90, 0xeb, 0xfc]);
  });
});
