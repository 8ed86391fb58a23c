import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/abi/input-error.ts';
import { readHostFiles } from '../../src/survey/read-host.ts';
import { bytesOf, inputErrorOf, noteTexts, SMALL_LOG, surveyOf } from './survey-of.ts';

const e820 = (range: string, type = 'usable'): string => `BIOS-e820: [mem ${range}] ${type}\n`;

describe('input that cannot be used', () => {
  it.each([
    ['empty', '', 'host: empty'],
    ['text without facts', 'hello\n', 'host: no memory map, SRAT or CMR in it'],
    ['a reversed range', e820('0x2000-0x1000'), 'host, line 1: memory range 0x2000-0x1000 is reversed'],
    [
      'a range above 52 bits',
      e820('0x0-0xffffffffffffffff'),
      'host, line 1: address 0xffffffffffffffff is above',
    ],
    [
      'overlapping map entries',
      e820('0x0-0xfffff') + e820('0x100000-0x1fffff') + e820('0x180000-0x2fffff', 'reserved'),
      'host, line 3: memory map entry [0x180000, 0x300000) overlaps [0x100000, 0x200000)',
    ],
    ['no RAM', e820('0x0-0xfffff', 'reserved'), 'host: no RAM'],
    [
      'a reversed CMR',
      'tdx: CMR: [0x200000, 0x100000)\n',
      'host, line 1: range [0x200000, 0x100000) is reversed',
    ],
    [
      'a ragged CMR',
      'tdx: CMR: [0x100100, 0x200000)\n',
      'host, line 1: CMR [0x100100, 0x200000) is not made',
    ],
    [
      'overlapping CMRs',
      'tdx: CMR: [0x100000, 0x300000)\ntdx: CMR: [0x200000, 0x400000)\n',
      'host, line 2: CMR [0x200000, 0x400000) overlaps CMR [0x100000, 0x300000)',
    ],
    [
      'more than 32 CMRs',
      Array.from({ length: 33 }, (_, i) => `tdx: CMR: [0x${i + 1}00000, 0x${i + 1}80000)\n`).join(''),
      'host, line 33: more than the 32 CMRs',
    ],
    ['memory beyond the address bits', e820('0x0-0xfffffffffffff'), 'ends above the 45 address bits'],
    [
      'too many processors',
      `${SMALL_LOG}Allowing 99999999 CPUs, 0 hotplug CPUs\n`,
      'host, line 22: 99999999 logical',
    ],
    [
      'overlapping SRAT entries',
      'SRAT: Node 0 PXM 0 [mem 0x0-0xfff]\n'.repeat(2),
      'host, line 2: SRAT memory',
    ],
  ])('%s is one sentence naming the place', async (_, text, message) => {
    const error = await inputErrorOf(text);
    expect(error).toContain(message);
    expect(error).not.toContain('\n');
  });

  it('is binary junk, also compressed', async () => {
    const junk = Uint8Array.from({ length: 5000 }, (_, i) => (i * 7919) % 256);
    expect(await inputErrorOf(junk)).toContain('host: neither text nor a SRAT');
    expect(await inputErrorOf(gzipSync(junk))).toContain('host: neither text nor a SRAT');
    expect(await inputErrorOf(gzipSync(bytesOf(SMALL_LOG)).subarray(0, 200))).toBe(
      'host: damaged or cut gzip data',
    );
    expect(await inputErrorOf(gzipSync(gzipSync(bytesOf(SMALL_LOG))))).toContain('compressed twice');
  });

  it('names missing files, directories and what is no host', async () => {
    await expect(readHostFiles(['no-such-host'])).rejects.toThrow(
      new InputError('no-such-host: there is no such file and no embedded host of this name'),
    );
    await expect(readHostFiles([tmpdir()])).rejects.toThrow(InputError);
    await expect(readHostFiles([])).rejects.toThrow(InputError);
  });
});

describe('large and odd input', () => {
  it('reads files as streams, compressed ones too', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'survey-'));
    const noise = '[  100.000000] systemd[1]: a line of no interest, as most of a log is\n'.repeat(50_000);
    const text = noise + SMALL_LOG.split('\n').slice(1).join('\n') + noise;
    try {
      writeFileSync(join(folder, 'big.dmesg'), text);
      writeFileSync(join(folder, 'big.log.gz'), gzipSync(text));
      const { machine } = await surveyOf(SMALL_LOG);
      for (const name of ['big.dmesg', 'big.log.gz']) {
        const survey = await readHostFiles([join(folder, name)]);
        expect(survey.machine).toEqual({ ...machine, name: 'big' });
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('survives lines without end', async () => {
    const survey = await surveyOf(`${'x'.repeat(3_000_000)}\n${SMALL_LOG}`);
    expect(survey.machine.memory).toHaveLength(4);
    expect(noteTexts(survey)).toContain('host:1 this line is over 64 KiB');
  });

  it('survives long lines that repeat what readers look for', async () => {
    const length = 60_000;
    const fill = (text: string): string => text.repeat(length / text.length);
    const lines = [fill('tdx: '), fill('CPU0: '), `0-0 : a${fill(' ')}b`, `${fill('9')} allocated for PAMT`];
    // Read in quadratic time these would outlast the test.
    const text = lines.map((line) => `${line}\n`.repeat(200)).join('');
    expect((await surveyOf(text + SMALL_LOG)).machine).toEqual((await surveyOf(SMALL_LOG)).machine);
  });

  it('refuses a map without end', async () => {
    const lines = Array.from({ length: 100_001 }, (_, i) => {
      const start = i * 0x2000;
      return `BIOS-e820: [mem 0x${start.toString(16)}-0x${(start + 0xfff).toString(16)}] usable`;
    });
    expect(await inputErrorOf(lines.join('\n'))).toContain('line 100001: more than 100000');
  });
});
