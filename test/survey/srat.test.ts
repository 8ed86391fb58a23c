import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { apicStructure, memoryStructure, sratTable, x2apicStructure } from './srat-bytes.ts';
import { inputErrorOf, memoryLines, surveyOf } from './survey-of.ts';

const GIB = 2 ** 30;
const TABLE = sratTable([
  memoryStructure(7, 0, 2 * GIB),
  memoryStructure(7, 4 * GIB, 60 * GIB),
  memoryStructure(9, 64 * GIB, 64 * GIB),
  memoryStructure(9, 128 * GIB, 128 * GIB, 0b011),
  memoryStructure(9, 512 * GIB, GIB, 0),
  apicStructure(9, 0x80),
  apicStructure(7, 0),
  x2apicStructure(7, 0x1ff),
  x2apicStructure(9, 0x2ff, 0),
  { type: 5, bytes: [0, 0, 0, 0] },
]);

const EXPECTED_MEMORY = [
  '0-80000000 ram present 0',
  '100000000-1000000000 ram present 0',
  '1000000000-2000000000 ram present 1',
  '2000000000-4000000000 ram hot-pluggable 1',
];

describe('a binary SRAT', () => {
  it('gives memory, windows, nodes and processors', async () => {
    const survey = await surveyOf(TABLE);
    expect(memoryLines(survey)).toEqual(EXPECTED_MEMORY);
    expect(survey.machine.srat.map((entry) => [entry.proximityDomain, entry.node])).toEqual([
      [7, 0],
      [7, 0],
      [9, 1],
      [9, 1],
    ]);
    expect(survey.machine.processors).toEqual([
      { apicId: 0, package: 0, node: 0, present: true },
      // Bits from the eighth on tell two packages apart, whatever the nodes.
      { apicId: 0x1ff, package: 1, node: 0, present: true },
      { apicId: 0x80, package: 0, node: 1, present: true },
    ]);
  });

  it('is read compressed', async () => {
    expect((await surveyOf(gzipSync(TABLE))).machine).toEqual((await surveyOf(TABLE)).machine);
  });

  it('has domains of 8 bits in revision 1', async () => {
    const low = sratTable([memoryStructure(0x1203, 4 * GIB, GIB), apicStructure(0x103, 1)], 1);
    const { machine } = await surveyOf(low);
    expect(machine.srat[0]).toMatchObject({ proximityDomain: 3, node: 0 });
    expect(machine.processors[0]).toMatchObject({ apicId: 1, node: 0 });
  });

  it('is refused with a wrong checksum, length or structure', async () => {
    const wrongSum = Uint8Array.from(TABLE);
    wrongSum[20]! ^= 1;
    expect(await inputErrorOf(wrongSum)).toContain('host: the SRAT checksum is wrong');
    expect(await inputErrorOf(TABLE.subarray(0, 100))).toMatch(
      /the SRAT header says \d+ bytes but there are 100/,
    );
    expect(await inputErrorOf(TABLE.subarray(0, 12))).toContain('cut');
    const zeroLength = sratTable([{ type: 1, bytes: [] }]);
    expect(await inputErrorOf(zeroLength)).toBe(
      'host: the SRAT structure at offset 0x30 has the wrong length 2',
    );
    const beyond = sratTable([memoryStructure(0, 2 ** 52, GIB)]);
    expect(await inputErrorOf(beyond)).toContain('ends above 52 bits');
    const overlapping = sratTable([memoryStructure(0, 0, GIB), memoryStructure(1, 4096, GIB)]);
    expect(await inputErrorOf(overlapping)).toContain('overlaps');
  });
});

describe('a SRAT in text', () => {
  const dump = (table: Uint8Array): string => {
    const lines = [
      'APIC @ 0x0000000000000000',
      '    0000: 41 50 49 43 00 00 00 00',
      '',
      'SRAT @ 0x0000000000000000',
    ];
    for (let at = 0; at < table.length; at += 16) {
      const bytes = [...table.subarray(at, at + 16)].map((byte) =>
        byte.toString(16).padStart(2, '0').toUpperCase(),
      );
      lines.push(
        `    ${at.toString(16).padStart(4, '0').toUpperCase()}: ${bytes.join(' ').padEnd(48)} ................`,
      );
    }
    return `${lines.join('\n')}\n\n`;
  };

  it('is read from acpidump, checksum included', async () => {
    expect((await surveyOf(dump(TABLE))).machine).toEqual((await surveyOf(TABLE)).machine);
    const wrong = Uint8Array.from(TABLE);
    wrong[60]! ^= 4;
    expect(await inputErrorOf(dump(wrong))).toContain('host, line 4: the SRAT checksum is wrong');
  });

  it('is read from a disassembly', async () => {
    const memory = (domain: number, base: number, length: number, flags: number): string => `
[044h 0068   1]                Subtable Type : 01 [Memory Affinity]
[045h 0069   1]                       Length : 28
[046h 0070   4]             Proximity Domain : ${domain.toString(16).padStart(8, '0')}
[04Ah 0074   2]                    Reserved1 : 0000
[04Ch 0076   8]                 Base Address : ${base.toString(16).padStart(16, '0').toUpperCase()}
[054h 0084   8]               Address Length : ${length.toString(16).padStart(16, '0').toUpperCase()}
[05Ch 0092   4]                    Reserved2 : 00000000
[060h 0096 004h]        Flags (decoded below) : ${flags.toString(16).padStart(8, '0')}
                                     Enabled : 1
                               Hot Pluggable : 0`;
    const text = `[000h 0000   4]                    Signature : "SRAT"    [System Resource Affinity Table]
[030h 0048   1]                Subtable Type : 02 [Processor Local x2APIC Affinity]
[034h 0052   4]             Proximity Domain : 00000007
[038h 0056   4]                      Apic ID : 000001FF
[03Ch 0060   4]        Flags (decoded below) : 00000001
[030h 0048   1]                Subtable Type : 00 [Processor Local APIC/SAPIC Affinity]
[032h 0050   1]      Proximity Domain Low(8) : 07
[033h 0051   1]                      Apic ID : 00
[034h 0052   4]        Flags (decoded below) : 00000001
[039h 0057   3]    Proximity Domain High(24) : 000000
[030h 0048   1]                Subtable Type : 00 [Processor Local APIC/SAPIC Affinity]
[032h 0050   1]      Proximity Domain Low(8) : 09
[033h 0051   1]                      Apic ID : 80
[034h 0052   4]        Flags (decoded below) : 00000001
${memory(7, 0, 2 * GIB, 1)}${memory(7, 4 * GIB, 60 * GIB, 1)}${memory(9, 64 * GIB, 64 * GIB, 1)}
${memory(9, 128 * GIB, 128 * GIB, 3)}
`;
    expect((await surveyOf(text)).machine).toEqual((await surveyOf(TABLE)).machine);
  });

  it('is read from the lines of a kernel', async () => {
    const survey = await surveyOf(`SRAT: PXM 9 -> APIC 0x80 -> Node 1
SRAT: PXM 7 -> APIC 0x0000 -> Node 0
SRAT: Node 0 PXM 7 [mem 0x00000000-0x7fffffff]
SRAT: Node 0 PXM 7 [mem 0x100000000-0xfffffffff]
SRAT: Node 1 PXM 9 [mem 0x1000000000-0x1fffffffff]
SRAT: Node 1 PXM 9 [mem 0x2000000000-0x3fffffffff] hotplug
SRAT: Node 2 PXM 10 [mem 0x4000000000-0x4fffffffff] non-volatile
`);
    expect(memoryLines(survey)).toEqual([...EXPECTED_MEMORY, '4000000000-5000000000 nvdimm present 2']);
    expect(survey.machine.processors.map((cpu) => [cpu.apicId, cpu.package, cpu.node])).toEqual([
      [0, 0, 0],
      [0x80, 1, 1],
    ]);
  });
});
