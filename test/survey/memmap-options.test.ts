import { describe, expect, it } from 'vitest';
import { changeMap, parseMapOptions } from '../../src/survey/memmap-options.ts';
import { memoryLines, noteTexts, surveyOf } from './survey-of.ts';

const GIB = 2 ** 30;

describe('memmap= and mem=', () => {
  it('understand every mark, unit and base', () => {
    const line =
      'quiet memmap=2G@4G,0x1000#0x100000,64K$1M memmap=1G!8G memmap=4K%2M-1+2 memmap=1M%3M-12,1M%4M+7';
    expect(parseMapOptions(line)).toEqual({
      changes: [
        { start: 4 * GIB, end: 6 * GIB, to: 'usable', onlyGaps: true },
        { start: 0x100000, end: 0x101000, to: 'acpi-data', onlyGaps: false },
        { start: 0x100000, end: 0x110000, to: 'reserved', onlyGaps: false },
        { start: 8 * GIB, end: 9 * GIB, to: 'legacy-pmem', onlyGaps: false },
        { start: 0x200000, end: 0x201000, from: 'usable', to: 'reserved' },
        { start: 0x300000, end: 0x400000, from: 'legacy-pmem' },
        { start: 0x400000, end: 0x500000, to: 'pmem' },
      ],
      unread: [],
    });
  });

  it('leave other options alone, and say so', async () => {
    const survey = await surveyOf(`BIOS-e820: [mem 0x0000000100000000-0x000000207fffffff] usable
Command line: quiet numa=fake=4 efi_fake_mem=1G@4G:0x40000 xnuma=1\n`);
    expect(noteTexts(survey)).toContain("option 'numa=fake=4' is not applied");
    expect(noteTexts(survey)).toContain("option 'efi_fake_mem=1G@4G:0x40000' is not applied");
    expect(noteTexts(survey)).not.toContain('xnuma');
  });

  it('name what they do not understand', () => {
    expect(parseMapOptions('memmap=banana,1G^2G mem= memmap=0@1G memmap=1G%2G-99').unread).toEqual([
      'memmap=banana',
      'memmap=1G^2G',
      'mem=',
      'memmap=0@1G',
      'memmap=1G%2G-99',
    ]);
  });

  it('change a map', () => {
    const map = [
      { start: 0, end: 10 * GIB, type: 'usable' },
      { start: 10 * GIB, end: 11 * GIB, type: 'reserved' },
    ] as const;
    const changed = (options: string) => parseMapOptions(options).changes.reduce(changeMap, map as never);
    expect(changed('memmap=4G!8G')).toEqual([
      { start: 0, end: 8 * GIB, type: 'usable' },
      { start: 8 * GIB, end: 12 * GIB, type: 'legacy-pmem' },
    ]);
    expect(changed('memmap=4G@9G')).toEqual([...map, { start: 11 * GIB, end: 13 * GIB, type: 'usable' }]);
    expect(changed('mem=6G')).toEqual([{ ...map[0], end: 6 * GIB }, map[1]]);
    expect(changed('memmap=exactmap memmap=1G@0')).toEqual([{ start: 0, end: GIB, type: 'usable' }]);
    expect(changed('memmap=4G%9G-2+7').at(-1)).toEqual({ start: 10 * GIB, end: 11 * GIB, type: 'pmem' });
  });

  it('apply to the map of a log, unless the log shows the outcome', async () => {
    const log = `Command line: memmap=4G!8G memmap=oops
BIOS-e820: [mem 0x0000000100000000-0x00000004ffffffff] usable\n`;
    const applied = await surveyOf(log);
    expect(memoryLines(applied)).toEqual([
      '100000000-200000000 ram present 0',
      '200000000-300000000 legacy-pmem present 0',
      '300000000-500000000 ram present 0',
    ]);
    expect(noteTexts(applied)).toContain("option 'memmap=oops' is not understood");
    // MCHECK finds CMRs before any kernel edits its map.
    expect(applied.machine.cmrs).toEqual([{ start: 4 * GIB, end: 20 * GIB }]);
    const shown = await surveyOf(`${log}user: [mem 0x0000000100000000-0x00000001ffffffff] usable\n`);
    expect(shown.machine.e820).toEqual([{ start: 4 * GIB, end: 8 * GIB, type: 'usable' }]);
    expect(noteTexts(shown)).toContain("host:3 the kernel's 'user' memory map replaces the firmware's");
  });
});
