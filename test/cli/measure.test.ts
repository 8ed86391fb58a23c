import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/abi/input-error.ts';
import type { Options } from '../../src/cli/verb.ts';
import { run } from '../../src/cli/verbs/measure.ts';
import { measureImage } from '../../src/vmm/measure-image.ts';
import { sampleImage } from '../../src/vmm/sample-image.ts';
import { captureIo } from '../support/capture-io.ts';
import { imageWith } from '../vmm/arbitrary-image.ts';

const SAMPLE = sampleImage();
const MRTD = measureImage(SAMPLE).mrtd!;
const [ONE, TWO] = [MRTD.get('one-pass')!, MRTD.get('two-pass')!];

const folder = mkdtempSync(join(tmpdir(), 'tdxlab-measure-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, contents: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, contents);
  return path;
}

const SAMPLE_FILE = file('sample.fd', SAMPLE.bytes);
/** Its firmware is partly behind the end of the file. */
const CUT = imageWith([{ ...SAMPLE.sections[0]!, fileOffset: 0x5000 }, SAMPLE.sections[3]!]);
const CUT_FILE = file('cut.fd', CUT.bytes);

async function measure(
  args: readonly string[],
  options: Options = {},
  columns = 100,
): Promise<{ lines: string[]; code: number }> {
  const io = captureIo(columns);
  const code = await run(args, options, io);
  return { lines: io.lines, code };
}

async function json(args: readonly string[], options: Options = {}): Promise<Record<string, unknown>> {
  return JSON.parse((await measure(args, { ...options, json: true })).lines.join('\n'));
}

describe('measure', () => {
  it('measures a file, and the embedded image by name or without one', async () => {
    for (const args of [[], ['sample'], [SAMPLE_FILE]]) {
      const { lines, code } = await measure(args);
      expect(code).toBe(0);
      expect(lines).toEqual(expect.arrayContaining([`  ${ONE}`, `  ${TWO}`]));
      expect(lines.filter((line) => /^MRTD (one|two)-pass {2}/.test(line))).toHaveLength(2);
      expect(lines).toContain('0  BFV          0x4000   48 KiB     0xffff4000     48 KiB  MR.EXTEND');
      expect(lines.at(-1)).toMatch(/^warning: QEMU builds no TD with PermMem/);
    }
  });

  it('tells the orders asked for', async () => {
    expect((await json(['sample'])).mrtd).toEqual({ onePass: ONE, twoPass: TWO });
    expect((await json(['sample'], { pageOrder: 'both' })).mrtd).toEqual({ onePass: ONE, twoPass: TWO });
    expect((await json(['sample'], { pageOrder: 'one-pass' })).mrtd).toEqual({ onePass: ONE });
    expect((await json(['sample'], { pageOrder: 'two-pass' })).mrtd).toEqual({ twoPass: TWO });
  });

  it('--json gives sections and warnings', async () => {
    const { image, sections, warnings } = await json([SAMPLE_FILE]);
    expect(image).toEqual({
      name: SAMPLE_FILE,
      bytes: 65_536,
      metadataOffset: SAMPLE.descriptorOffset,
      foundBy: 'guid-table',
    });
    expect(sections).toHaveLength(6);
    expect(sections).toContainEqual({
      type: 'BFV',
      fileOffset: 0x4000,
      fileBytes: 0xc000,
      address: 0xffff_4000,
      memoryBytes: 0xc000,
      attributes: ['MR.EXTEND'],
    });
    expect(warnings).toEqual([expect.stringContaining('PermMem')]);
  });

  it('says which order gives the expected MRTD, and ends with 1 when none does', async () => {
    expect(await measure([], { expect: TWO.toUpperCase() })).toMatchObject({ code: 0 });
    expect((await measure([], { expect: TWO })).lines.at(-1)).toBe('The expected MRTD is that of two-pass.');
    expect(await json([], { expect: ONE })).toMatchObject({ expected: ONE, matches: ['one-pass'] });
    const no = await measure([], { expect: TWO, pageOrder: 'one-pass' });
    expect(no.code).toBe(1);
    expect(no.lines.at(-1)).toBe('The expected MRTD is not that of one-pass.');
    expect((await measure([], { expect: '0'.repeat(96), json: true })).code).toBe(1);
    expect(await json([], { expect: '0'.repeat(96) })).toMatchObject({ matches: [] });
  });

  it.each(['', '12', '0'.repeat(95), '0'.repeat(97), `${'0'.repeat(95)}g`, `${'0'.repeat(95)}\n`])(
    'refuses to expect %j',
    async (text) => {
      await expect(measure([], { expect: text })).rejects.toThrow(/--expect takes an MRTD of 96 hexadecimal/);
    },
  );

  it.each([
    ['nowhere.fd', /^nowhere\.fd: there is no such file; 'sample' names the embedded image$/],
    [folder, /: this is a folder; give a firmware image$/],
    ['/dev/null', /^\/dev\/null: neither a file nor a pipe$/],
    [file('empty.fd', new Uint8Array(0)), /empty\.fd: not a TDVF image: 0 bytes/],
    [file('junk.fd', new Uint8Array(9999).fill(7)), /junk\.fd: not a TDVF image: nothing at its end/],
    [file('half.fd', SAMPLE.bytes.subarray(0, 32_768)), /half\.fd: not a TDVF image/],
  ])('refuses %s with one sentence', async (path, sentence) => {
    await expect(measure([path])).rejects.toThrow(InputError);
    await expect(measure([path])).rejects.toThrow(sentence);
  });

  it('refuses an order that is none', async () => {
    await expect(measure([], { pageOrder: 'three-pass' })).rejects.toThrow(
      "--page-order takes one-pass, two-pass or both, not 'three-pass'",
    );
  });

  it('shows the sections of an image that has no MRTD before it refuses', async () => {
    const io = captureIo();
    await expect(run([CUT_FILE], {}, io)).rejects.toThrow(
      /cut\.fd: no MRTD: section 0 \(BFV\) is outside the file: it takes bytes \[0x5000, 0x11000\)/,
    );
    expect(io.lines.some((line) => /^1 {2}TD_HOB/.test(line))).toBe(true);
    const asJson = captureIo();
    await expect(run([CUT_FILE], { json: true }, asJson)).rejects.toThrow(InputError);
    const { mrtd, warnings } = JSON.parse(asJson.lines.join('\n')) as Record<string, unknown>;
    expect(mrtd).toBeNull();
    expect(warnings).toEqual([expect.stringContaining('section 0 (BFV) is outside the file')]);
  });

  it.each([80, 100, 200])('fits %i columns', async (columns) => {
    const { lines } = await measure([], { expect: TWO }, columns);
    expect(lines.filter((line) => line.length > columns)).toEqual([]);
    expect(lines.join('')).not.toMatch(/undefined|\[object/);
    const digits = lines.filter((line) => /^ +[0-9a-f]+$/.test(line)).map((line) => line.trim());
    expect(digits.join('')).toBe(ONE + TWO);
  });
});

describe('the command measure', () => {
  const BIN = fileURLToPath(new URL('../../bin/tdxlab.mjs', import.meta.url));
  const tdxlab = (...args: string[]) =>
    spawnSync(process.execPath, [BIN, 'measure', ...args], { encoding: 'utf8', input: '' });

  it('ends with 0, 1 and 2', () => {
    expect(tdxlab(SAMPLE_FILE, '--expect', ONE)).toMatchObject({ status: 0, stderr: '' });
    expect(tdxlab(SAMPLE_FILE, '--expect', ONE, '--page-order', 'two-pass').status).toBe(1);
    for (const args of [
      ['nowhere.fd'],
      [CUT_FILE, '--json'],
      [SAMPLE_FILE, '--expect', 'ff'],
      [SAMPLE_FILE, 'x'],
    ]) {
      const { status, stderr } = tdxlab(...args);
      expect(status).toBe(2);
      expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    }
  });

  it('explains itself within 80 columns', () => {
    const { stdout } = tdxlab('--help');
    for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
  });
});
