import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../src/abi/address.ts';
import type { Options } from '../../src/cli/verb.ts';
import { run } from '../../src/cli/verbs/inspect.ts';
import { run as td } from '../../src/cli/verbs/td.ts';
import { run as up } from '../../src/cli/verbs/up.ts';
import { createHost } from '../../src/lab/host.ts';
import { saveHost } from '../../src/lab/snapshot/save-host.ts';
import { LabTd } from '../../src/lab/td/lab-td.ts';
import { TINY } from '../kernel/tiny-machine.ts';
import { captureIo } from '../support/capture-io.ts';

const folder = mkdtempSync(join(tmpdir(), 'tdxlab-'));
afterAll(() => rmSync(folder, { recursive: true }));

const SAVED = join(folder, 'td.host');
let tdr: string;

beforeAll(async () => {
  const host = createHost(TINY);
  await host.kernel.boot();
  const td = LabTd.build(host.kernel, { pages: [{ gpa: PAGE_4K, contents: Uint8Array.of(1) }] });
  for (let gpa = 2; gpa < 512; gpa++) td.augment(gpa * PAGE_4K);
  tdr = `0x${td.tdr.toString(16)}`;
  writeFileSync(SAVED, saveHost(host));
});

async function inspect(
  operands: readonly string[],
  options: Options = {},
  columns = 80,
): Promise<{ code: number; lines: readonly string[] }> {
  const io = captureIo(columns);
  const code = await run(operands, options, io);
  return { code, lines: io.lines };
}

describe('tdxlab inspect', () => {
  it('shows what is in a saved host', async () => {
    const { code, lines } = await inspect([SAVED]);
    const text = lines.join('\n');
    expect(code).toBe(0);
    expect(lines[0]).toBe('tiny');
    expect(text).toMatch(/^TDX module {3}1\.5\.25, SYS_READY$/m);
    expect(text).toMatch(
      new RegExp(`^${tdr} +10 {2}KEYS_CONFIGURED {2}RUNNABLE +\\S+ MiB {2}0x10000000`, 'm'),
    );
    expect(text).toMatch(new RegExp(`^TD ${tdr} {2}REG +511 +0 +0 +2 MiB$`, 'm'));
    expect(text).toMatch(/^ {4}9 {2}RESERVED {2}TDX module/m);
    expect(text).toMatch(/^11-16 {2}FREE/m);
    expect(text).not.toMatch(/Secure EPT/);
  });

  it('draws the secure EPT with runs of equal leaves made one', async () => {
    const { lines } = await inspect([SAVED], { sept: true });
    const tree = lines.slice(lines.indexOf(`Secure EPT of TD ${tdr}`) + 1);
    expect(tree[0]).toMatch(/^0x0-0x8000000000: 512G NL_MAPPED table 0x[0-9a-f]+$/);
    expect(tree.slice(1, 5).map((line) => line.replace(/ table .*/, ''))).toEqual([
      '  0x0-0x40000000: 1G NL_MAPPED',
      '    0x0-0x200000: 2M NL_MAPPED',
      '      0x1000-0x2000: 4K MAPPED RWX',
      '      0x2000-0x200000: 510 x 4K PENDING',
    ]);
  });

  it('shows one TD alone', async () => {
    const { lines } = await inspect([SAVED], { td: tdr, sept: true }, 200);
    expect(lines[0]).toBe(`TD ${tdr}`);
    expect(lines.join('\n')).toMatch(/^MRTD {8}[0-9a-f]{96}$/m);
    expect(lines).toContain(`Secure EPT of TD ${tdr}`);
    expect(lines).not.toContain('Page metadata');
  });

  it.each([80, 200])('keeps to %i columns', async (columns) => {
    const whole = await inspect([SAVED], { sept: true }, columns);
    const alone = await inspect([SAVED], { td: tdr }, columns);
    const failed = await inspect(['emr-256g-4node'], {}, columns);
    const lines = [...whole.lines, ...alone.lines, ...failed.lines];
    expect(lines.filter((line) => line.length > columns)).toEqual([]);
  });

  it('brings a host up first', async () => {
    const { code, lines } = await inspect(['spr-256g-2node']);
    expect(code).toBe(0);
    expect(lines).toContain('none');
    expect(lines.join('\n')).toMatch(/^TDX {10}initialized$/m);
  });

  it('prints JSON', async () => {
    const { lines } = await inspect([SAVED], { json: true, sept: true });
    expect(JSON.parse(lines.join('\n'))).toMatchObject({
      machine: { name: 'tiny', tdx: 'initialized' },
      tds: [
        {
          tdr: Number(tdr),
          opState: 'RUNNABLE',
          sept: [{ size: '512G', table: { entries: [{ size: '1G' }] } }],
        },
      ],
      keyIds: [{ state: 'RESERVED' }, { state: 'ASSIGNED' }, { state: 'FREE' }],
    });
  });

  it.each([
    ['a TD that is not there', { td: '0x1000' }, /no TD has its TDR at 0x1000; TDs there are 0x/],
    ['an address that is none', { td: 'first' }, /--td takes the address of a TDR/],
    ['choices for a host that is up', { dynamicPamt: true }, /--dynamic-pamt chooses how a host comes up/],
  ])('refuses %s', async (_, options, sentence) => {
    await expect(inspect([SAVED], options)).rejects.toThrow(sentence);
  });

  it('refuses a saved host that is cut, and a file that is neither', async () => {
    const cut = join(folder, 'cut.host');
    writeFileSync(cut, 'TDXLABHS');
    await expect(inspect([cut])).rejects.toThrow(`${cut}: cut short`);
    const other = join(folder, 'other');
    writeFileSync(other, 'nothing');
    await expect(inspect([other])).rejects.toThrow(/no memory map/);
  });
});

describe('tdxlab td --save', () => {
  it('keeps the TD of the program for inspect to find', async () => {
    const path = join(folder, 'program.host');
    expect(await td(['spr-256g-2node', 'hello'], { save: path }, captureIo())).toBe(0);
    const { lines } = await inspect([path], { json: true });
    expect(JSON.parse(lines.join('\n'))).toMatchObject({
      tds: [{ opState: 'RUNNABLE', vcpus: [{ index: 0 }] }],
    });
  });
});

describe('tdxlab up --save', () => {
  it('writes a host that inspect reads, and no partial file', async () => {
    const path = join(folder, 'up.host');
    const io = captureIo();
    expect(await up(['spr-256g-2node'], { save: path }, io)).toBe(0);
    expect(io.errors.join('\n')).toContain(`saved to ${path}`);
    expect((await inspect([path])).lines).toContain('spr-256g-2node');
    expect(readdirSync(folder).filter((name) => name.endsWith('.partial'))).toEqual([]);
  });

  it('saves a host on which TDX failed', async () => {
    const path = join(folder, 'failed.host');
    expect(await up(['emr-256g-4node'], { save: path }, captureIo())).toBe(1);
    expect((await inspect([path])).lines.join(' ')).toMatch(
      /error: reserved-areas: .* reserved areas +exhausted/,
    );
  });

  it('says so when the file cannot be written', async () => {
    await expect(up(['spr-256g-2node'], { save: join(folder, 'no', 'x') }, captureIo())).rejects.toThrow(
      /cannot write/,
    );
  });
});
