import { describe, expect, it } from 'vitest';
import { inputErrorOf, memoryLines, noteTexts, SMALL_LOG, surveyOf } from './survey-of.ts';

const RAM = 'BIOS-e820: [mem 0x0000000100000000-0x000000207fffffff] usable\n';

describe('a kernel log', () => {
  it('gives the machine, the hints and what the kernel reported', async () => {
    const survey = await surveyOf(SMALL_LOG);
    const { machine, kernel, observed } = survey;
    expect(memoryLines(survey)).toEqual([
      '0-a0000 ram present 0',
      '100000-72000000 ram present 0',
      '100000000-1080000000 ram present 0',
      '1080000000-2080000000 ram present 1',
    ]);
    expect(machine.e820).toHaveLength(7);
    expect(machine.e820[3]).toEqual({ start: 0x70000000, end: 0x71000000, type: 'acpi-data' });
    expect(machine.srat).toHaveLength(3);
    expect(machine.cmrs).toEqual([
      { start: 0x100000, end: 0x72000000 },
      { start: 0x1_0000_0000, end: 0x20_8000_0000 },
    ]);
    expect(machine.keyIds).toEqual({ mktme: 15, tdx: 48 });
    expect(machine.cpuModel).toBe('sierra-forest');
    expect(machine.module).toBe('1.5.16');
    expect(machine.processors.filter((cpu) => cpu.present)).toHaveLength(64);
    expect(machine.processors).toHaveLength(72);
    expect(new Set(machine.processors.map((cpu) => cpu.package))).toEqual(new Set([0, 1]));
    expect(machine.processors.every((cpu) => cpu.node === cpu.package)).toBe(true);
    expect(kernel).toMatchObject({ hibernationDisabled: true });
    expect(kernel.commandLine).toMatch(/^BOOT_IMAGE=.*kvm_intel\.tdx=1$/);
    expect(observed).toEqual({
      keyIds: { start: 16, end: 64 },
      module: { major: 1, minor: 5, update: 16 },
      pamtKb: 533520,
      initialized: true,
    });
    expect(noteTexts(survey)).toBe('host: no CMR list: CMRs are assumed to be the RAM of the memory map');
  });

  it('reads the same with any prefix, line end and level', async () => {
    const plain = await surveyOf(SMALL_LOG);
    const variants = [
      (line: string) => line.replace(/^\[ *[\d.]+\] /, ''),
      (line: string) => `<6>${line}`,
      (line: string) => `${line}\r`,
      (line: string) => line.replace(/^\[ *[\d.]+\] /, 'Oct 10 12:00:01 host kernel: '),
      (line: string) => line.replace(/\] /, '][    T0] '),
      (line: string) => `> ${line}`,
    ];
    for (const variant of variants) {
      expect(await surveyOf(SMALL_LOG.split('\n').map(variant).join('\n'))).toEqual(plain);
    }
  });

  it('ignores a cut last line and notes a cut map entry', async () => {
    const cut = await surveyOf(`${RAM}BIOS-e820: [mem 0x00000020800`);
    expect(cut.machine.e820).toHaveLength(1);
    expect(noteTexts(cut)).toContain('host:2 this memory map entry is cut');
  });

  it('takes the last of several boots', async () => {
    const older = SMALL_LOG.replace('[16, 64)', '[32, 64)').replace(
      '0x000000207fffffff',
      '0x000000107fffffff',
    );
    const survey = await surveyOf(older + SMALL_LOG);
    expect(survey.machine).toEqual((await surveyOf(SMALL_LOG)).machine);
    expect(noteTexts(survey)).toContain('2 boots in one log: the last, from line 22, is used');
  });

  it('tells boots apart without a banner, and falls back where the last one shows no memory', async () => {
    const line = (range: string): string => `virt/tdx: BIOS enabled: private KeyID range ${range}\n`;
    const cmr = 'virt/tdx: CMR: [0x100000000, 0x200000000)\n';
    const two = await surveyOf(line('[16, 64)') + cmr + line('[32, 64)') + cmr);
    expect(two.observed.keyIds).toEqual({ start: 32, end: 64 });
    const map = await surveyOf(RAM + line('[16, 64)') + RAM);
    expect(map.machine.e820).toHaveLength(1);
    const fallen = await surveyOf(`${RAM}${line('[16, 64)')}Linux version 6.1\ntdx: module not loaded\n`);
    expect(fallen.observed.keyIds).toEqual({ start: 16, end: 64 });
    expect(noteTexts(fallen)).toContain('the last shows no memory');
    const cut = 'Linux version 6.1\ntdx: module not loaded\n';
    const twice = await surveyOf(`${RAM}${line('[16, 64)')}${cut}${cut}`);
    expect(twice.observed.keyIds).toEqual({ start: 16, end: 64 });
    expect(noteTexts(twice)).toContain(
      '3 boots in one log: the last shows no memory, so the latest that does',
    );
  });

  it('takes an excerpt appended to its own log as the same boot', async () => {
    const excerpt = SMALL_LOG.split('\n').filter((line) => line.includes('tdx:'));
    const survey = await surveyOf(SMALL_LOG + excerpt.join('\n'));
    expect(survey.machine).toEqual((await surveyOf(SMALL_LOG)).machine);
    expect(noteTexts(survey)).not.toContain('boots');
  });

  it('knows every wording of memory types', async () => {
    const words: readonly (readonly [string, string])[] = [
      ['usable', 'usable'],
      ['System RAM', 'usable'],
      [' 1.9 GB System RAM', 'usable'],
      ['device reserved', 'reserved'],
      ['ACPI data', 'acpi-data'],
      ['ACPI NVS', 'acpi-nvs'],
      ['unusable', 'unusable'],
      ['persistent (type 7)', 'pmem'],
      ['persistent (type 12)', 'legacy-pmem'],
      ['persistent RAM (type 12)', 'legacy-pmem'],
      ['soft reserved', 'soft-reserved'],
      ['type 20', 'reserved'],
    ];
    for (const [word, type] of words) {
      const { machine } = await surveyOf(`${RAM}BIOS-e820: [mem 0x3000000000-0x3fffffffff] ${word}\n`);
      expect(machine.e820[1], word).toEqual({ start: 0x30_0000_0000, end: 0x40_0000_0000, type });
    }
  });

  it('skips gaps, kernel changes and PCI windows that look like map entries', async () => {
    const { machine } = await surveyOf(
      `${RAM}BIOS-e820: [gap 0x00000000af800000-0x00000000fed1ffff]
e820: update [mem 0x00000000-0x00000fff] usable ==> reserved
e820: [mem 0xc0000000-0xfed1bfff] available for PCI devices
`,
    );
    expect(machine.e820).toHaveLength(1);
  });

  it('reads PAMT in KB, KBs and pages', async () => {
    for (const [amount, kb] of [
      ['1050636 KB', 1050636],
      ['1050636 KBs', 1050636],
      ['65667 pages', 262668],
    ] as const) {
      const { observed } = await surveyOf(`${RAM}tdx: ${amount} allocated for PAMT\n`);
      expect(observed.pamtKb).toBe(kb);
    }
  });

  it('reads CMRs, TDMRs and the module in older wordings', async () => {
    const { machine, observed } = await surveyOf(
      `x86/tdx: TDX module: vendor_id 0x8086, major_version 1, minor_version 0, build_date 20211209, build_num 160
tdx: CMR[0]: [0x100000, 0x70000000)
tdx: CMR[1]: [0x100000000, 0x2080000000)
tdx: CMR[2]: [0x0, 0x0)
tdx: TDMR: [0x0, 0x80000000), 3 reserved areas
tdx: TDX module initialized.
`,
    );
    expect(machine.cmrs).toHaveLength(2);
    expect(machine.module).toBe('1.0');
    expect(observed.tdmrs).toEqual([{ start: 0, end: 0x80000000, reservedAreas: 3 }]);
    expect(observed.initialized).toBe(true);
  });

  it('reads KeyIDs and SEAMCALL errors in the wordings of older kernels', async () => {
    const { machine, observed } = await surveyOf(`${RAM}tdx: TDX private KeyID: start 16, nr 48
tdx: SEAMCALL failed: CPU 94: leaf 33, error 0xc000092100000122.\n`);
    expect(machine.keyIds).toEqual({ mktme: 15, tdx: 48 });
    expect(observed.seamcallErrors).toEqual([{ leaf: 33, status: 0xc000_0921_0000_0122n }]);
  });

  it('reads failures with their errno, range and SEAMCALL', async () => {
    const exhausted = await surveyOf(`${RAM}virt/tdx: TDMR [0x0, 0x80000000): reserved areas exhausted.
virt/tdx: module initialization failed (-28)
`);
    expect(exhausted.observed).toMatchObject({
      initialized: false,
      failure: {
        text: 'TDMR [0x0, 0x80000000): reserved areas exhausted.',
        errno: -28,
        range: { start: 0, end: 0x80000000 },
      },
    });
    const refused = await surveyOf(`${RAM}virt/tdx: SEAMCALL (0x22) failed: 0xc000050500000000
virt/tdx: TDX-Module initialization failed (-5)
`);
    expect(refused.observed).toEqual({
      initialized: false,
      seamcallErrors: [{ leaf: 0x22, status: 0xc000050500000000n }],
      failure: { text: 'SEAMCALL (0x22) failed: 0xc000050500000000', errno: -5 },
    });
    const missing = await surveyOf(`${RAM}virt/tdx: module not loaded\n`);
    expect(missing.machine.module).toBeNull();
    const hibernation = await surveyOf(
      `${RAM}virt/tdx: initialization failed: Hibernation support is enabled\n`,
    );
    expect(hibernation.kernel.hibernationDisabled).toBe(false);
    expect(hibernation.observed.failure).toEqual({ text: 'Hibernation support is enabled' });
  });

  it('remarks on a command line without nohibernate and on the log of a guest', async () => {
    const survey = await surveyOf(`${RAM}Command line: quiet\n[    0.0] tdx: Guest detected\n`);
    expect(survey.kernel).toEqual({ commandLine: 'quiet' });
    expect(noteTexts(survey)).toContain('nohibernate');
    expect(noteTexts(survey)).toContain('host:3 this is the log of a guest');
  });

  it('adds the KeyID bits to the address width the kernel shows', async () => {
    const { machine } = await surveyOf(
      `${RAM}virt/tdx: BIOS enabled: private KeyID range [32, 64)\naddress sizes\t: 40 bits physical, 57 bits virtual\n`,
    );
    expect(machine.physicalAddressBits).toBe(46);
  });
});

describe('a KeyID range', () => {
  const keyIds = (range: string): string => `${RAM}virt/tdx: BIOS enabled: private KeyID range ${range}\n`;

  it('may hold one key or none: the kernel is who refuses', async () => {
    expect((await surveyOf(keyIds('[64, 65)'))).machine.keyIds).toEqual({ mktme: 63, tdx: 1 });
    expect((await surveyOf(keyIds('[64, 64)'))).machine.keyIds).toEqual({ mktme: 63, tdx: 0 });
  });

  it('is refused reversed, from zero, and beyond 15 bits', async () => {
    expect(await inputErrorOf(keyIds('[64, 32)'))).toBe(
      'host, line 2: private KeyID range [64, 32) is reversed',
    );
    expect(await inputErrorOf(keyIds('[0, 32)'))).toContain('host, line 2');
    expect(await inputErrorOf(keyIds('[1, 99999)'))).toContain('host, line 2: 99999');
  });
});
