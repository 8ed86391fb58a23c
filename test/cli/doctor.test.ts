import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../src/abi/input-error.ts';
import type { Options } from '../../src/cli/verb.ts';
import { run as collect } from '../../src/cli/verbs/collect.ts';
import { run as doctor } from '../../src/cli/verbs/doctor.ts';
import { captureIo } from '../support/capture-io.ts';
import { bootLog, changed, cpuinfo, GOOD_HOST, GOOD_TDX_LINES, writeRoot } from '../support/fake-root.ts';

const folder = mkdtempSync(join(tmpdir(), 'tdxlab-doctor-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));

const GOOD = writeRoot(GOOD_HOST, folder);
const FAILED = writeRoot(
  changed({
    '/kernel.log': bootLog([...GOOD_TDX_LINES.slice(0, 3), 'virt/tdx: module initialization failed (-12)']),
    '/proc/cmdline': 'nohibernate',
    '/sys/module/kvm_intel/parameters/tdx': 'N',
  }),
  folder,
);
const VM = writeRoot({ '/proc/cpuinfo': cpuinfo(undefined, { flags: 'hypervisor' }) }, folder);

async function show(options: Options, columns = 80): Promise<{ lines: readonly string[]; code: number }> {
  const io = captureIo(columns);
  const code = await doctor([], options, io);
  return { lines: io.lines, code };
}

describe('tdxlab doctor', () => {
  it('exits with 0 when ready or no TDX host, with 1 when not ready', async () => {
    expect((await show({ root: GOOD })).code).toBe(0);
    expect((await show({ root: VM })).code).toBe(0);
    expect((await show({ root: FAILED })).code).toBe(1);
    expect((await show({ root: writeRoot({}, folder) })).code).toBe(1);
    await expect(show({ root: join(folder, 'nowhere') })).rejects.toThrow(InputError);
  });

  it('answers on the machine it runs on', async () => {
    const { lines, code } = await show({});
    expect(lines[0]).toMatch(/\S/);
    expect([0, 1]).toContain(code);
  });

  it('leads with the verdict, then a line per stage, each failure with cause and remedy', async () => {
    const { lines } = await show({ root: FAILED });
    expect(lines.slice(0, 2).join(' ')).toContain('the module did not initialise (-12) (and 1 more).');
    const failures = lines.filter((line) => line.startsWith('FAIL'));
    expect(failures.map((line) => line.slice(9, 24).trim())).toEqual(['initialisation', 'KVM']);
    expect(lines.filter((line) => line.includes('cause  '))).toHaveLength(2);
    expect(lines.filter((line) => line.includes('what to do  '))).toHaveLength(2);
    expect(lines.some((line) => line.includes('all of it: cd '))).toBe(true);
  });

  it.each([80, 200])('keeps to %d columns but for long paths', async (columns) => {
    const { lines } = await show({ root: GOOD }, columns);
    const longest = lines.filter((line) => line.length > columns);
    expect(longest.filter((line) => line.trim().includes(' '))).toEqual([]);
  });

  it('puts stages of which there is but one thing to say on one line', async () => {
    const { lines } = await show({ root: VM }, 200);
    expect(lines.filter((line) => line.startsWith('-'))).toHaveLength(1);
  });

  it('passes no control characters of a file on to the terminal', async () => {
    const name = '\u001b[2J\u0007evil\u009b31m';
    const root = writeRoot(
      changed({ '/proc/cpuinfo': cpuinfo(undefined, { name, vendor: `toString${name}` }) }),
      folder,
    );
    const { lines } = await show({ root });
    expect(lines.join('\n')).toContain('evil');
    expect(lines.filter((line) => /\p{Cc}/u.test(line))).toEqual([]);
  });

  it('prints one JSON document', async () => {
    const { lines } = await show({ root: GOOD, json: true });
    const report = JSON.parse(lines.join('\n'));
    expect(report).toMatchObject({ verdict: 'ready', plan: { ok: true } });
    expect(report.stages[0]).toMatchObject({ id: 'processor', status: 'pass' });
  });
});

describe('tdxlab collect', () => {
  it('writes an archive that doctor takes, and lists it', async () => {
    const out = join(folder, 'host.tar.gz');
    const io = captureIo(80);
    expect(await collect([], { out }, io)).toBe(0);
    expect(existsSync(out)).toBe(true);
    expect(io.lines.join(' ')).toContain('tdxlab doctor --root');
    const here = await show({ json: true });
    expect(await show({ root: out, json: true })).toEqual(here);
    await expect(collect([], { out }, io)).rejects.toThrow(InputError);
  });

  it('prints its manifest as JSON', async () => {
    const io = captureIo();
    await collect([], { out: join(folder, 'tree'), json: true }, io);
    expect(JSON.parse(io.lines.join('\n'))).toMatchObject({
      format: 'tdxlab collection 1',
      platform: process.platform,
    });
  });
});
