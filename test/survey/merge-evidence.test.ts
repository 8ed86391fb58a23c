import { describe, expect, it } from 'vitest';
import { describeMachine } from '../../src/survey/describe-machine.ts';
import { inputErrorOf, memoryLines, noteTexts, SMALL_LOG, surveyOf } from './survey-of.ts';

const CMRS = `virt/tdx: CMR: [0x100000, 0x70000000)
virt/tdx: CMR: [0x100000000, 0x1080000000)
virt/tdx: CMR: [0x1080000000, 0x2080000000)
`;

describe('processors', () => {
  const apic = (node: number, id: number): string =>
    `SRAT: PXM ${node} -> APIC 0x${id.toString(16)} -> Node ${node}`;
  const PLAIN = `${CMRS}Max. logical packages: 2\n`;

  it('are laid out by their count where a log has lost SRAT lines', async () => {
    const survey = await surveyOf(
      `${PLAIN}${apic(0, 0)}\n${apic(1, 0x80)}\nsmp: Brought up 2 nodes, 64 CPUs\n`,
    );
    expect(survey.machine.processors).toHaveLength(64);
    expect(noteTexts(survey)).toContain('only 2 of 64 processors have SRAT lines');
    const few = await surveyOf(`${PLAIN}${apic(0, 0)}\n${apic(1, 0x80)}\nsmp: Brought up 1 node, 1 CPUs\n`);
    expect(few.machine.processors).toHaveLength(2);
  });

  it('are in packages that their APIC ids tell apart', async () => {
    const lines = (ids: readonly number[]): string => ids.map((id) => apic(0, id)).join('\n');
    const packages = async (ids: readonly number[]): Promise<number[]> =>
      (await surveyOf(PLAIN + lines(ids))).machine.processors.map((cpu) => cpu.package);
    // The log counts two packages; halves of the list would be {0, 1} and {2, 0x200}.
    expect(await packages([0, 1, 2, 0x200])).toEqual([0, 0, 0, 1]);
    const odd = await surveyOf(
      `${CMRS}No NUMA configuration found\nMax. logical packages: 3\n${lines([0, 1, 2, 4, 5, 7])}`,
    );
    expect(odd.machine.processors.map((cpu) => cpu.apicId)).toEqual([0, 1, 128, 129, 256, 257]);
    expect(noteTexts(odd)).toContain('the APIC ids do not tell 3 packages apart');
  });
});

describe('a survey', () => {
  it('stands on CMR lines alone', async () => {
    const survey = await surveyOf(CMRS);
    expect(memoryLines(survey)).toEqual([
      '100000-70000000 ram present 0',
      '100000000-1080000000 ram present 0',
      '1080000000-2080000000 ram present 1',
    ]);
    expect(survey.machine.e820.every((entry) => entry.type === 'usable')).toBe(true);
    expect(survey.machine.srat.map((entry) => entry.node)).toEqual([0, 0, 1]);
    const notes = noteTexts(survey);
    for (const words of [
      'CMRs stand for the memory',
      '2 CMRs above 4 GiB',
      'KeyID range',
      'packages',
      'processors',
    ]) {
      expect(notes).toContain(words);
    }
  });

  it('keeps to one node where the kernel says so or the CMRs are unlike', async () => {
    const single = await surveyOf(`${CMRS}No NUMA configuration found\n`);
    expect(new Set(single.machine.memory.map((range) => range.node))).toEqual(new Set([0]));
    expect(single.machine.srat).toEqual([]);
    const unlike = await surveyOf(CMRS.replace('0x2080000000)', '0x1090000000)'));
    expect(unlike.machine.srat).toEqual([]);
  });

  it('lets CMRs stand for what a cut map does not cover', async () => {
    const survey = await surveyOf(`BIOS-e820: [mem 0x0000000000100000-0x000000005fffffff] usable
BIOS-e820: [mem 0x0000000060000000-0x000000008fffffff] reserved
${CMRS}`);
    expect(survey.machine.e820.map((entry) => entry.start)).toEqual([
      0x100000, 0x60000000, 0x1_0000_0000, 0x10_8000_0000,
    ]);
    expect(noteTexts(survey)).toContain('covers only [0x100000, 0x90000000): the 2 CMRs beyond it');
    const one = await surveyOf(`BIOS-e820: [mem 0x0000000000100000-0x000000005fffffff] usable
virt/tdx: CMR: [0x100000000, 0x200000000)\n`);
    expect(noteTexts(one)).toContain('the CMR beyond it stands for memory');
  });

  it('keeps present memory a superset of the CMRs', async () => {
    const survey = await surveyOf(`BIOS-e820: [mem 0x0000000000100000-0x000000005fffffff] usable
BIOS-e820: [mem 0x0000000060000000-0x00000000ffffffff] reserved
BIOS-e820: [mem 0x0000000100000000-0x000000207fffffff] usable
${CMRS}`);
    expect(memoryLines(survey)[0]).toBe('100000-70000000 ram present 0');
  });

  it('takes nodes from a SRAT beside the log', async () => {
    const srat = `SRAT: Node 0 PXM 0 [mem 0x00000000-0x187fffffff]
SRAT: Node 1 PXM 1 [mem 0x1880000000-0x207fffffff]\n`;
    expect(memoryLines(await surveyOf(CMRS, srat)).slice(1)).toEqual([
      '100000000-1880000000 ram present 0',
      '1880000000-2080000000 ram present 1',
    ]);
  });

  it('takes nodes from the ranges a kernel prints where SRAT lines are lost, and says what a kernel does', async () => {
    const srat = `SRAT: Node 0 PXM 0 [mem 0x00000000-0x7fffffff]
SRAT: Node 2 PXM 2 [mem 0x3000000000-0x3fffffffff] hotplug\n`;
    const alone = await surveyOf(CMRS + srat);
    expect(noteTexts(alone)).toContain('leaves 126 GiB of RAM uncovered: Linux ignores such a SRAT');
    const completed = await surveyOf(`${CMRS}${srat}  node   0: [mem 0x0000000000001000-0x000000107fffffff]
  node   1: [mem 0x0000001080000000-0x000000207fffffff]\n`);
    expect(memoryLines(completed)).toEqual([
      '100000-70000000 ram present 0',
      '100000000-1080000000 ram present 0',
      '1080000000-2080000000 ram present 1',
      '3000000000-4000000000 ram hot-pluggable 2',
    ]);
    expect(completed.machine.srat.map((entry) => entry.node)).toEqual([0, 0, 1, 2]);
    expect(noteTexts(completed)).toContain("the kernel's own ranges per node are used");
  });

  it('takes present persistent memory of a SRAT without a map for what it is', async () => {
    const survey = await surveyOf(`SRAT: Node 0 PXM 0 [mem 0x00000000-0x7fffffff]
SRAT: Node 1 PXM 1 [mem 0x100000000-0x1ffffffff] non-volatile\n`);
    expect(memoryLines(survey)).toEqual(['0-80000000 ram present 0', '100000000-200000000 nvdimm present 1']);
  });

  it('says that TDX may be off where a whole boot shows no KeyIDs', async () => {
    expect(noteTexts(await surveyOf(CMRS))).toContain('no private KeyID range is shown');
    const whole = await surveyOf(`${CMRS}smp: Brought up 2 nodes, 64 CPUs\n`);
    expect(noteTexts(whole)).toContain('the kernel reported no private KeyIDs: TDX is off in the BIOS');
  });

  it('takes nodes from the memory ranges a kernel prints', async () => {
    const survey = await surveyOf(`${CMRS}Early memory node ranges
  node   0: [mem 0x0000000000001000-0x000000006fffffff]
  node   0: [mem 0x0000000100000000-0x00000007ffffffff]
  node   1: [mem 0x0000000800000000-0x000000207fffffff]\n`);
    expect(memoryLines(survey).slice(1)).toEqual([
      '100000000-800000000 ram present 0',
      '800000000-2080000000 ram present 1',
    ]);
  });

  it('makes hot-pluggable memory of SRAT windows, less what is populated', async () => {
    const survey = await surveyOf(
      `${CMRS}SRAT: Node 0 PXM 0 [mem 0x00000000-0x207fffffff]
SRAT: Node 2 PXM 2 [mem 0x2000000000-0x2fffffffff] hotplug\n`.replace('0x207fffffff]', '0x1fffffffff]'),
    );
    expect(memoryLines(survey).slice(-2)).toEqual([
      '2000000000-2080000000 ram present 2',
      '2080000000-3000000000 ram hot-pluggable 2',
    ]);
  });

  it('lets the last source win and says so', async () => {
    const other = SMALL_LOG.replace('[16, 64)', '[32, 64)');
    const survey = await surveyOf(SMALL_LOG, other);
    expect(survey.machine.keyIds).toEqual({ mktme: 31, tdx: 32 });
    expect(noteTexts(survey)).toContain('host: memory map left out: host2 has it too');
  });

  it('adds what a log reports to a described machine', async () => {
    const described = describeMachine((await surveyOf(CMRS)).machine);
    const survey = await surveyOf(described, SMALL_LOG);
    expect(survey.machine).toEqual((await surveyOf(CMRS)).machine);
    expect(survey.observed.pamtKb).toBe(533520);
    expect(noteTexts(survey)).toContain('host2: only what its kernel reported is used');
    expect(await inputErrorOf(described, described)).toContain('more than one machine description');
  });

  it('keeps the SEAM range in a hole, aligned and off the CMRs', async () => {
    const gap = CMRS.replace('0x1080000000)\n', '0x107a000000)\n');
    expect((await surveyOf(gap)).machine.seamrr).toEqual({ start: 0x10_7a00_0000, end: 0x10_7c00_0000 });
    expect((await surveyOf(CMRS)).machine.seamrr).toEqual({ start: 0x20_8000_0000, end: 0x20_8200_0000 });
  });

  it('assumes at most 32 CMRs, closing the smallest gaps', async () => {
    const entries = Array.from({ length: 100 }, (_, i) => {
      const start = 0x1_0000_0000 + i * 0x1000_0000;
      const end = start + 0x0800_0000 + (i % 3) * 0x1000;
      return `BIOS-e820: [mem 0x${start.toString(16)}-0x${(end - 1).toString(16)}] usable`;
    });
    const { machine } = await surveyOf(entries.join('\n'));
    expect(machine.cmrs).toHaveLength(32);
    expect(machine.cmrs[0]!.start).toBe(0x1_0000_0000);
  });

  it('maps module versions to the releases there are', async () => {
    for (const [line, release] of [
      ['Module version 1.5.25', '1.5.25'],
      ['Module version 1.5.07', '1.5.06'],
      ['Module version 1.5.00', '1.5.01'],
      ['Module version 2.0.08', '2.0.08'],
      ['Module version 3.1.00', '1.5.25'],
      ['major_version 1, minor_version 5, build_date 20231008, build_num 595', '1.5.05'],
      ['major_version 1, minor_version 5, build_date 20240129, build_num 698', '1.5.05'],
      ['major_version 1, minor_version 0, build_date 20220601, build_num 457', '1.0'],
    ] as const) {
      expect((await surveyOf(`${CMRS}virt/tdx: ${line}\n`)).machine.module, line).toBe(release);
    }
  });

  it('spreads counted processors over packages and nodes', async () => {
    const { machine } = await surveyOf(`${CMRS}smpboot: Allowing 300 CPUs, 20 hotplug CPUs
smpboot: Max logical packages: 4\n`);
    const present = machine.processors.filter((cpu) => cpu.present);
    expect(present).toHaveLength(280);
    expect(present.filter((cpu) => cpu.package === 1 && cpu.node === 1)).toHaveLength(140);
    expect(new Set(machine.processors.map((cpu) => cpu.apicId)).size).toBe(300);
    expect(machine.processors.every((cpu) => Math.floor(cpu.apicId / 256) === cpu.package)).toBe(true);
  });
});
