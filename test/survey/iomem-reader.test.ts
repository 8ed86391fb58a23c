import { describe, expect, it } from 'vitest';
import { inputErrorOf, memoryLines, noteTexts, surveyOf } from './survey-of.ts';

const IOMEM = `00000000-00000fff : Reserved
00001000-0009ffff : System RAM
000a0000-000fffff : Reserved
  000a0000-000dffff : PCI Bus 0000:00
00100000-5fffffff : System RAM
60000000-60ffffff : ACPI Tables
61000000-61ffffff : ACPI Non-volatile Storage
62000000-6fffffff : Reserved
100000000-1fffffffff : System RAM
  14b600000-14cbfffff : Kernel code
2000000000-23ffffffff : Persistent Memory (legacy)
  2000000000-23ffffffff : namespace0.0
2400000000-27ffffffff : Persistent Memory
  2400000000-27ffffffff : dax1.0
    2400000000-27ffffffff : System RAM (kmem)
3000000000-3fffffffff : CXL Window 0
  3000000000-33ffffffff : region0
    3000000000-33ffffffff : dax0.0
      3000000000-33ffffffff : System RAM (kmem)
4000000000-40ffffffff : Soft Reserved
`;

describe('/proc/iomem', () => {
  it('gives memory of every kind', async () => {
    const survey = await surveyOf(IOMEM);
    expect(memoryLines(survey)).toEqual([
      '1000-a0000 ram present 0',
      '100000-62000000 ram present 0',
      '100000000-2000000000 ram present 0',
      '2000000000-2400000000 legacy-pmem present 0',
      '2400000000-2800000000 nvdimm present 0',
      '3000000000-3400000000 cxl present 1',
      '3400000000-4000000000 cxl hot-pluggable 1',
      '4000000000-4100000000 soft-reserved present 0',
    ]);
    expect(survey.machine.e820.map((entry) => entry.type)).toEqual([
      'reserved',
      'usable',
      'reserved',
      'usable',
      'acpi-data',
      'acpi-nvs',
      'reserved',
      'usable',
      'legacy-pmem',
      'pmem',
      'soft-reserved',
    ]);
    expect(survey.machine.cmrs).toEqual([
      { start: 0x100000, end: 0x62000000 },
      { start: 0x1_0000_0000, end: 0x20_0000_0000 },
    ]);
    expect(noteTexts(survey)).toContain('each is assumed to be a node of its own');
  });

  it('only adds kinds and windows to the map of a log', async () => {
    const log = `BIOS-e820: [mem 0x0000000100000000-0x0000001fffffffff] usable
BIOS-e820: [mem 0x0000002400000000-0x00000027ffffffff] persistent (type 7)\n`;
    expect(memoryLines(await surveyOf(log, IOMEM))).toEqual([
      '100000000-2000000000 ram present 0',
      '2400000000-2800000000 nvdimm present 0',
      '3000000000-3400000000 cxl present 1',
      '3400000000-4000000000 cxl hot-pluggable 1',
    ]);
  });

  it('read without privilege says what to do', async () => {
    expect(await inputErrorOf(IOMEM.replaceAll(/[0-9a-f]+-[0-9a-f]+/g, '00000000-00000000'))).toBe(
      'host, line 1: every address is zero: read /proc/iomem as root',
    );
  });

  it('is refused with overlapping memory, naming the line', async () => {
    const error = await inputErrorOf(`${IOMEM}1f00000000-20ffffffff : System RAM\n`);
    expect(error).toMatch(/^host, line 21: memory map entry .* overlaps/);
  });
});
