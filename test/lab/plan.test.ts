import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { GIB, MIB } from '../../src/abi/address.ts';
import type { Plan, PlanOptions } from '../../src/lab/plan/plan.ts';
import { planHost } from '../../src/lab/plan/plan-host.ts';
import { EMBEDDED_HOSTS } from '../../src/survey/embedded/hosts.ts';
import { readHostFiles } from '../../src/survey/read-host.ts';
import type { Survey } from '../../src/survey/survey.ts';

const DEFAULTS: PlanOptions = { holes: 'memblock', dynamicPamt: false };

async function plan(source: string, options: Partial<PlanOptions> = {}): Promise<Plan> {
  return planHost(await readHostFiles([source]), { ...DEFAULTS, ...options });
}

async function surveyOf(source: string, changes: Partial<Survey['machine']>): Promise<Survey> {
  const survey = await readHostFiles([source]);
  return { ...survey, observed: {}, machine: { ...survey.machine, ...changes } };
}

describe('plan of embedded hosts', () => {
  it.each([...EMBEDDED_HOSTS])('%s: KeyIDs, TDs and PAMT to the kilobyte', async (name, { expected }) => {
    const result = await plan(name);
    const passing = expected.initialisesWithMemblockHoles ? result : await plan(name, { holes: 'cmr' });
    expect(result.verdict.ok).toBe(expected.initialisesWithMemblockHoles);
    expect(passing.verdict.ok).toBe(true);
    expect(passing.pamt.totalKb).toBe(expected.pamtKb);
    expect(passing.tds.max).toBe(expected.maxTds);
    expect(passing.tdmrs).toHaveLength(expected.tdmrs);
    expect(result.comparisons.filter((comparison) => !comparison.agrees)).toEqual([]);
  });

  it('accounts for every byte of every node', async () => {
    for (const name of EMBEDDED_HOSTS.keys()) {
      const { nodes, machine, pamt } = await plan(name);
      for (const node of nodes) {
        expect(node.tdxBytes + node.nonTdxBytes).toBe(node.memoryBytes);
        expect(node.nonTdx.reduce((sum, range) => sum + range.bytes, 0)).toBe(node.nonTdxBytes);
      }
      expect(nodes.reduce((sum, node) => sum + node.memoryBytes, 0)).toBe(machine.memoryBytes);
      expect(nodes.reduce((sum, node) => sum + node.pamtBytes, 0)).toBe(pamt.totalBytes);
    }
  });

  it('names step, errno, ranges and tried remedies for the splintered map', async () => {
    const { verdict, remedies, tdmrs } = await plan('emr-256g-4node');
    expect(verdict).toMatchObject({
      ok: false,
      step: 'reserved-areas',
      errno: -28,
      errnoName: 'ENOSPC',
      code: 'reserved-areas-exhausted',
    });
    expect(tdmrs[0]).toMatchObject({ start: 0, end: 2 * GIB, reservedAreas: 17, reservedAreaLimit: 16 });
    expect(verdict.ranges).toHaveLength(17);
    expect(remedies.map((remedy) => remedy.change).join('\n')).toMatch(
      /--holes cmr[\s\S]*memmap=0x1000\$0x64158000/,
    );
  });

  it('says of memory that TDs cannot use what holds it', async () => {
    const { nodes } = await plan('spr-256g-2node');
    expect(nodes[0]!.nonTdx[0]).toMatchObject({ start: 0, why: 'below 1 MiB' });
    const pamts = nodes.flatMap(({ nonTdx }) => nonTdx.filter(({ why }) => /^holds the PAMT/.test(why)));
    expect(pamts.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(1_050_636 * 1024);
  });

  it('gives PAMT bytes for the three page sizes', async () => {
    const { tdmrs } = await plan('spr-256g-2node');
    // A TDMR of 2 GiB: 524,288 pages of 4 KiB, 1,024 of 2 MiB, 2 of 1 GiB, 16 bytes each, rounded up to 4 KiB.
    expect(tdmrs[0]!.pamtBytes).toEqual({ '4k': 8 * MIB, '2m': 16_384, '1g': 4096, total: 8 * MIB + 20_480 });
  });
});

describe('plan of changed hosts', () => {
  it('agrees with a failure whose errno no line of the log shows', async () => {
    const survey = await surveyOf('spr-256g-2node', { keyIds: { mktme: 63, tdx: 1 } });
    const observed = { initialized: false, failure: { text: 'too few private KeyIDs' } };
    const { comparisons } = planHost({ ...survey, observed }, DEFAULTS);
    expect(comparisons).toEqual([
      { what: 'outcome', planned: 'failed with ENODEV (-19)', observed: 'failed', agrees: true },
    ]);
    const passing = planHost({ ...(await surveyOf('spr-256g-2node', {})), observed }, DEFAULTS);
    expect(passing.comparisons[0]).toMatchObject({ planned: 'initialised', agrees: false });
  });

  it('finds what keeps a host down before any memory matters', async () => {
    const cases: [Partial<Survey['machine']>, string, number, RegExp][] = [
      [{ keyIds: null }, 'detect', -19, /BIOS/],
      [{ keyIds: { mktme: 63, tdx: 1 } }, 'detect', -19, /KeyIDs/],
      [{ module: null }, 'cpus', -19, /--module 1\.5\.25/],
      [{ module: '1.0' }, 'sysinfo', -5, /--module/],
    ];
    for (const [changes, step, errno, remedy] of cases) {
      const result = planHost(await surveyOf('spr-256g-2node', changes), DEFAULTS);
      expect(result.verdict).toMatchObject({ ok: false, step, errno });
      expect(result.remedies.map(({ change }) => change).join('\n')).toMatch(remedy);
    }
  });

  it('names memory that is no System RAM by its kind, in a CMR or not', async () => {
    const end = 0x4080_0000_00 + GIB;
    const range = { start: 0x4080_0000_00, end };
    const survey = await surveyOf('spr-256g-2node', {});
    const { machine } = survey;
    const whyOf = (cmrs: typeof machine.cmrs): string | undefined => {
      const memory = [...machine.memory, { ...range, node: 1, kind: 'cxl', state: 'present' } as const];
      const e820 = [...machine.e820, { ...range, type: 'soft-reserved' } as const];
      const { nodes } = planHost({ ...survey, machine: { ...machine, memory, e820, cmrs } }, DEFAULTS);
      return nodes[1]!.nonTdx.find(({ kind }) => kind === 'cxl')?.why;
    };
    expect(whyOf(machine.cmrs)).toBe('CXL memory in no CMR, no System RAM unless dax/kmem makes it so');
    expect(whyOf([...machine.cmrs, range])).toBe('CXL memory, no System RAM unless dax/kmem makes it so');
  });

  it('compares the SEAMCALL that failed', async () => {
    const seamcallErrors = [{ leaf: 0x22, status: 0xc000_0505_0000_0000n }];
    const observed = { initialized: false, seamcallErrors, failure: { text: 'SEAMCALL', errno: -5 } };
    const of = async (module: string) => {
      const survey = await surveyOf('spr-256g-2node', { module });
      return planHost({ ...survey, observed }, DEFAULTS).comparisons.at(-1);
    };
    const seen = 'TDH.SYS.RD TDX_SYS_NOT_READY';
    expect(await of('1.0')).toEqual({ what: 'SEAMCALL', planned: seen, observed: seen, agrees: true });
    expect(await of('1.5.05')).toMatchObject({ planned: 'none fails', observed: seen, agrees: false });
  });

  it('tells what to change about CPUs left down and too many KeyIDs', async () => {
    const remediesOf = async (changes: Partial<Survey['machine']>, commandLine: string): Promise<string> => {
      const survey = await surveyOf('spr-256g-2node', changes);
      const { remedies } = planHost({ ...survey, kernel: { commandLine } }, DEFAULTS);
      return remedies.map(({ change }) => change).join();
    };
    expect(await remediesOf({}, 'quiet nr_cpus=8 nosmp ro')).toMatch(/^boot without nr_cpus=8 nosmp:/);
    expect(await remediesOf({}, 'maxcpus=1')).toMatch(/^boot without maxcpus=1:/);
    expect(await remediesOf({ keyIds: { mktme: 63, tdx: 3000 } }, '')).toMatch(/give TDX fewer KeyIDs/);
  });

  it('tells to boot with nohibernate, and only that, where hibernation is in the way', async () => {
    const survey = await surveyOf('spr-256g-2node', {});
    const { verdict, remedies } = planHost({ ...survey, kernel: { hibernationDisabled: false } }, DEFAULTS);
    expect(verdict).toMatchObject({ ok: false, step: 'detect', errnoName: 'EINVAL', code: 'hibernation' });
    expect(remedies.map(({ change }) => change)).toEqual(['boot with nohibernate']);
  });

  it('recognises the TDX 1.0 module by its status', async () => {
    const { verdict } = await plan('spr-256g-2node', { module: '1.0' });
    expect(verdict.status).toEqual({ value: 0xc000_0505_0000_0000n, name: 'TDX_SYS_NOT_READY' });
  });

  it('leaves out memory that no CMR covers', async () => {
    const survey = await surveyOf('spr-256g-2node', {
      cmrs: [
        { start: MIB, end: 0x7780_0000 },
        { start: 4 * GIB, end: 0x206e_0000_00 },
      ],
    });
    const result = planHost(survey, DEFAULTS);
    expect(result.verdict).toMatchObject({ ok: false, step: 'config', errno: -5 });
    expect(result.verdict.status?.name).toMatch(/TDX_(TDMR|PAMT)_OUTSIDE_CMRS/);
    expect(result.verdict.ranges).toEqual([{ start: 0x2080_0000_00, end: 0x4070_0000_00 }]);
    expect(result.remedies.map(({ change }) => change).join()).toMatch(/leave out one range.*memmap=/);
    expect(result.remedies.map(({ effect }) => effect).join()).toContain('127.75 GiB are lost to the host');
  });

  it('spends a hundredth of PAMT with Dynamic PAMT where addresses are short enough', async () => {
    const options = { ...DEFAULTS, dynamicPamt: true, module: '1.5.25' };
    const short = planHost(
      await surveyOf('spr-256g-2node', { physicalAddressBits: 52, keyIds: { mktme: 63, tdx: 64 } }),
      options,
    );
    expect(short.verdict.ok).toBe(true);
    expect(short.pamt.totalKb).toBeLessThan(12_000);
  });
});

const HOSTS = fileURLToPath(new URL('../../../shared/hosts/', import.meta.url));

describe.skipIf(!existsSync(HOSTS))('plan of real logs (skipped where ../shared is absent)', () => {
  it.each([
    ['spr-256g-2node.dmesg', { ok: true, kb: 1_050_636, tds: 63 }],
    ['emr-256g-4node-works.dmesg', { ok: true, kb: 1_050_644, tds: 31 }],
    ['emr-256g-4node-fails.dmesg', { ok: false, kb: 1_050_644, tds: 31 }],
  ])('%s', async (file, expected) => {
    const result = await plan(`${HOSTS}${file}`);
    expect(result.verdict.ok).toBe(expected.ok);
    expect(result.pamt.totalKb).toBe(expected.kb);
    expect(result.tds.max).toBe(expected.tds);
    expect(result.comparisons.length).toBeGreaterThan(1);
    expect(result.comparisons.every((comparison) => comparison.agrees)).toBe(true);
  });

  it('takes hot-plug windows for announced memory, not for TDX memory', async () => {
    const result = await plan(`${HOSTS}srat-hotplug-windows.dmesg`);
    const windows = result.nodes.filter((node) => node.hotPluggableBytes > 0);
    expect(windows.map((node) => node.node).sort()).toEqual([2, 3, 4, 5, 6, 7]);
    for (const node of windows) expect(node.tdxBytes).toBe(0);
  });

  it.each(['cxl-two-windows.txt', 'pmem-legacy.txt'])('%s: not convertible today', async (file) => {
    const result = await plan(`${HOSTS}${file}`);
    expect(result.nodes.reduce((sum, node) => sum + node.tdxBytes, 0)).toBe(0);
    const why = result.nodes.flatMap((node) => node.nonTdx.map((range) => range.why)).join('\n');
    expect(why).toMatch(/in no CMR, no System RAM unless dax\/kmem makes it so/);
    expect(result.tdmrs).toEqual([]);
    expect(result.warnings).toEqual([expect.stringContaining('show no System RAM')]);
  });
});
