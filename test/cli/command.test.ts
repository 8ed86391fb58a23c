import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { KNOB_NAMES } from '../../src/kernel/policy/knobs.ts';
import { EMBEDDED_HOSTS } from '../../src/survey/embedded/hosts.ts';
import { SPR_256G_2NODE } from '../../src/survey/embedded/spr-256g-2node.ts';

const BIN = fileURLToPath(new URL('../../bin/tdxlab.mjs', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'tdxlab-'));
afterAll(() => rmSync(folder, { recursive: true }));

function tdxlab(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [BIN, ...args], { encoding: 'utf8', input: '' });
}

function file(name: string, contents: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, contents);
  return path;
}

describe('the command', () => {
  it('plans, with exit code 0 for yes and 1 for no', () => {
    const yes = tdxlab('plan', 'spr-256g-2node', '--json');
    expect(yes.status).toBe(0);
    expect(JSON.parse(yes.stdout)).toMatchObject({
      tdx: { privateKeyIds: { start: 64, end: 128 } },
      tds: { max: 63 },
      pamt: { totalKb: 1_050_636 },
      verdict: { ok: true },
    });
    const no = tdxlab('plan', 'emr-256g-4node');
    expect(no.status).toBe(1);
    expect(no.stdout).toMatch(/TDX will not initialise: reserved-areas fails with ENOSPC \(-28\)/);
    expect(no.stdout).toContain('PAMTs, 1,050,644 KB in all');
  });

  it('brings up, traces into a whole file and leaves no partial one', () => {
    const trace = join(folder, 'trace.txt');
    const { status, stdout } = tdxlab('up', 'spr-256g-2node', '--trace', trace);
    expect(status).toBe(0);
    expect(stdout).toMatch(/1050636 KB allocated for PAMT/);
    expect(readFileSync(trace, 'utf8').trimEnd().split('\n').length).toBeGreaterThan(65_536);
    expect(existsSync(`${trace}.partial`)).toBe(false);
  });

  it('reads standard input', () => {
    const log =
      '[ 1.0] virt/tdx: BIOS enabled: private KeyID range [32, 64)\n[ 2.0] virt/tdx: CMR: [0x100000, 0x80000000)\n';
    const { status, stdout } = spawnSync(process.execPath, [BIN, 'plan', '-', '--json'], {
      encoding: 'utf8',
      input: log,
    });
    expect(status).toBe(0);
    expect(JSON.parse(stdout).tds.max).toBe(31);
  });

  it.each([
    ['no verb', [], /./],
    ['an unknown verb', ['fly'], /unknown command 'fly'/],
    ['an unknown option', ['plan', '--fast', 'spr-256g-2node'], /unknown option '--fast'/],
    ['a missing host', ['plan'], /missing required argument/],
    ['a missing file', ['plan', 'nowhere.dmesg'], /nowhere\.dmesg: there is no such file/],
    ['a value that is none', ['plan', 'spr-256g-2node', '--holes', 'e820'], /--holes takes memblock or cmr/],
    ['a release that is none', ['up', 'spr-256g-2node', '--module', '9.9'], /no release '9\.9'; known are/],
    ['a knob that is none', ['up', 'spr-256g-2node', '--policy', 'mood=good'], /no knob 'mood'/],
    [
      'a knob value that is none',
      ['up', 'spr-256g-2node', '--policy', 'enable=never'],
      /takes boot, first-user/,
    ],
    [
      'a knob value with more behind it',
      ['up', 'spr-256g-2node', '--policy', 'holes=cmr=x'],
      /holes takes memblock, cmr, not 'cmr=x'/,
    ],
    ['standard input twice', ['plan', '-', '-'], /standard input \(-\) can be read only once/],
    ['a failure point that is none', ['up', 'spr-256g-2node', '--fail-at', 'lunch'], /is no failure point/],
    [
      'a trace that cannot be written',
      ['up', 'spr-256g-2node', '--trace', '/nowhere/t'],
      /cannot write \/nowhere\/t/,
    ],
    [
      'a trace that is a folder',
      ['up', 'spr-256g-2node', '--trace', folder],
      /cannot write .*: it is not the name/,
    ],
    ['a write without a path', ['sysfs', 'spr-256g-2node', '--write', '1'], /--write needs the path/],
    ['a word nobody knows', ['explain', 'qwertyuiop'], /qwertyuiop/],
  ])('refuses %s with one sentence and exit code 2', (_, args, sentence) => {
    const { status, stderr } = tdxlab(...args);
    expect(status).toBe(2);
    expect(stderr).toMatch(sentence);
    expect(stderr).not.toMatch(/\n\s+at /);
    if (args.length > 0) expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  it('explains itself within 80 columns: hosts, knobs, exit codes', () => {
    const pages = [tdxlab('--help'), ...['plan', 'up', 'sysfs'].map((verb) => tdxlab(verb, '--help'))];
    for (const { status, stdout } of pages) {
      expect(status).toBe(0);
      for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
    }
    expect(pages[0]!.stdout).toContain('Exit code 0: done; 1: the answer is no; 2:');
    for (const { stdout } of pages.slice(1)) expect(stdout).toContain([...EMBEDDED_HOSTS.keys()].join(', '));
    for (const { stdout } of pages.slice(2)) {
      for (const knob of KNOB_NAMES) expect(stdout).toContain(knob);
    }
    expect(tdxlab('--version').stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it('explains words that start with a hyphen', () => {
    expect(tdxlab('explain', '-ENOMEM').stdout).toMatch(/^ENOMEM {2}-12/);
    expect(tdxlab('explain', '-accel kvm: vm-type tdx not supported by KVM').status).toBe(0);
  });

  it('takes knobs one by one, operands after them', () => {
    const { status, stdout } = tdxlab(
      ...['up', '--policy', 'holes=cmr', '--policy', 'on-error=shutdown', 'emr-256g-4node', '--json'],
    );
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ state: 'initialized', notes: [] });
  });

  it('acts as the first user, and says what keeps opt-in off', () => {
    expect(tdxlab('up', 'spr-256g-2node', '--policy', 'enable=first-user').stdout).toContain('TDX is up');
    const { status, stdout } = tdxlab('up', 'spr-256g-2node', '--policy', 'enable=opt-in');
    expect(status).toBe(1);
    expect(stdout).toContain('use_tdx=on was not given');
  });

  it.each([
    ['TDH.SYS.KEY.CONFIG#3', /call 3 of TDH\.SYS\.KEY\.CONFIG was never reached: there were only 2/],
    ['alloc:pamts', /nothing was allocated for 'pamts', only for vmxon-region, tdmr-list, pamt,/],
    ['seamcall:99999999', /SEAMCALL 99999999 was never reached/],
  ])('says that the failure %s did not come about', (point, sentence) => {
    const { status, stderr } = tdxlab('up', 'spr-256g-2node', '--fail-at', point);
    expect(status).toBe(2);
    expect(stderr).toMatch(sentence);
  });

  it.each(['plan', 'up', 'sysfs'])('%s refuses a description with a release nobody knows', (verb) => {
    const machine = { ...SPR_256G_2NODE.machine, module: '9.9' };
    const path = file('release.machine.json', JSON.stringify(machine));
    const { status, stderr } = tdxlab(verb, path);
    expect(status).toBe(2);
    expect(stderr).toMatch(/module: there is no release '9\.9'; known are 1\.0/);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  it.each([
    ['empty', ''],
    ['junk', Uint8Array.from({ length: 5000 }, (_, i) => (i * 7919) & 0xff)],
    ['no RAM', 'BIOS-e820: [mem 0x0000000000000000-0x000000000009efff] reserved\n'],
    ['reversed', 'BIOS-e820: [mem 0x0000000000200000-0x0000000000100000] usable\n'],
    [
      '33 CMRs',
      Array.from(
        { length: 33 },
        (_, i) => `virt/tdx: CMR: [0x${(i * 2 + 1).toString(16)}000000, 0x${(i * 2 + 2).toString(16)}000000)`,
      ).join('\n'),
    ],
  ])('refuses a host that is %s', (name, contents) => {
    const path = file(`${name}.dmesg`, contents);
    const { status, stderr, stdout } = tdxlab('plan', path);
    expect(status).toBe(2);
    expect(stderr).toContain(path);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stdout).toBe('');
  });
});
