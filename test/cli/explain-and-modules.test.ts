import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/abi/input-error.ts';
import type { Io } from '../../src/cli/io.ts';
import type { Options, Run } from '../../src/cli/verb.ts';
import { run as runExplain } from '../../src/cli/verbs/explain.ts';
import { run as runModules } from '../../src/cli/verbs/modules.ts';

/** Runs a verb and returns the lines it prints. */
async function linesOf(
  run: Run,
  args: readonly string[],
  columns = 100,
  options: Options = {},
): Promise<string[]> {
  const lines: string[] = [];
  const io: Io = { out: (line = '') => lines.push(line), err: () => {}, columns, colour: false };
  expect(await run(args, options, io)).toBe(0);
  return lines;
}

async function jsonOf(run: Run, args: readonly string[]): Promise<unknown> {
  return JSON.parse((await linesOf(run, args, 80, { json: true })).join('\n'));
}

const EXPLAINED = [
  'virt/tdx: SEAMCALL (0x22) failed: 0xc000050500000000',
  'module initialization failed (-22)',
  '0x8000000000000000',
  'EINVAL',
  'TDH.SYS.CONFIG',
  'CPUID_CONFIG_VALUES',
  'TDX_SEAMCALL_VMFAILINVALID',
  '0xc0000a1200050103',
];

describe.each([80, 200])('in %i columns', (columns) => {
  it.each(EXPLAINED)('explain %s fits', async (word) => {
    const lines = await linesOf(runExplain, [word], columns);
    expect(lines.filter((line) => line.length > columns)).toEqual([]);
    expect(lines.join('\n')).not.toMatch(/undefined|\[object/);
  });

  it.each([[[]], [['1.0']], [['1.5.25']], [['diff', '1.5.05', '2.0.08']], [['diff', '1.0', '1.0']]])(
    'modules %j fits',
    async (args) => {
      const lines = await linesOf(runModules, args, columns);
      expect(lines.filter((line) => line.length > columns)).toEqual([]);
      expect(lines.join('\n')).not.toMatch(/undefined|\[object/);
    },
  );
});

describe('explain', () => {
  it('says what to do', async () => {
    const text = (await linesOf(runExplain, [EXPLAINED[0]!])).join('\n');
    expect(text).toContain('TDH.SYS.RD answered TDX_SYS_NOT_READY');
    expect(text).toContain('Install a TDX 1.5 module');
  });

  it('tells that a word has several readings', async () => {
    expect((await linesOf(runExplain, ['28']))[0]).toBe('28 has 2 readings, the likeliest first.');
  });

  it('--json gives one array of readings', async () => {
    expect(await jsonOf(runExplain, ['28', 'TDX_SYS_NOT_READY'])).toMatchObject([
      { input: '28', kind: 'errno', name: 'ENOSPC' },
      { input: '28', kind: 'leaf', name: 'TDH.PHYMEM.PAGE.RECLAIM' },
      {
        input: 'TDX_SYS_NOT_READY',
        kind: 'status',
        data: { class: 'MODULE_STATE', value: '0xc000050500000000' },
      },
    ]);
  });

  it('refuses what nobody knows', async () => {
    await expect(linesOf(runExplain, ['frobnicate'])).rejects.toThrow(InputError);
  });
});

describe('modules', () => {
  it('lists every release with what is new in it', async () => {
    const lines = await linesOf(runModules, [], 200);
    expect(lines.find((line) => line.startsWith('1.5.20'))).toContain('DYNAMIC_PAMT');
    expect(lines.find((line) => line.startsWith('1.5.05'))).toContain('2024-01-29 698');
  });

  it('--json gives releases, one release and a difference', async () => {
    expect(await jsonOf(runModules, [])).toContainEqual(expect.objectContaining({ version: '1.5.25' }));
    expect(await jsonOf(runModules, ['1.5.05'])).toMatchObject({ version: '1.5.05', features0: '0x61f0fbf' });
    expect(await jsonOf(runModules, ['diff', '1.5.05', '1.5.25'])).toMatchObject({
      from: '1.5.05',
      to: '1.5.25',
      hostLeaves: { gained: ['TDH.PHYMEM.PAMT.ADD', 'TDH.PHYMEM.PAMT.REMOVE'] },
    });
  });

  it.each([
    [['9.9']],
    [['diff']],
    [['diff', '1.5.05']],
    [['1.5.05', '1.5.25']],
    [['diff', '1.5.05', '1.5.25', 'x']],
  ])('refuses %j', async (args) => {
    await expect(linesOf(runModules, args)).rejects.toThrow(InputError);
  });
});
