/**
 * Measures what users wait for, each in a process of its own, and prints a table beside the limits that the project
 * sets itself. Writes bench/results/latest.json. Not part of the tests: a slow machine is no defect.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = fileURLToPath(new URL('.', import.meta.url));

interface Row {
  readonly what: string;
  readonly measured: number;
  readonly unit: string;
  /** The figure must not be above (`<=`) or below (`>=`) this. */
  readonly limit?: readonly ['<=' | '>=', number];
}

function child(script: string, ...args: string[]): Record<string, number> {
  const { stdout, stderr, status } = spawnSync(process.execPath, [join(HERE, script), ...args], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${script} ${args.join(' ')} failed: ${stderr}`);
  return JSON.parse(stdout) as Record<string, number>;
}

function bringUp(tib: number, nodes: number, seconds: number, mib: number): Row[] {
  const name = `bring-up of ${tib} TiB on ${nodes} nodes`;
  const {
    ms = 0,
    maxRssMib = 0,
    tdmrInitCalls = 0,
    virtualMs = 0,
  } = child('bring-up.ts', String(tib), String(nodes));
  return [
    { what: `${name}: time`, measured: ms / 1000, unit: 's', limit: ['<=', seconds] },
    { what: `${name}: peak memory`, measured: maxRssMib, unit: 'MiB', limit: ['<=', mib] },
    { what: `${name}: TDMR.INIT calls`, measured: tdmrInitCalls, unit: 'calls' },
    { what: `${name}: hardware's time / ours`, measured: virtualMs / ms, unit: 'x' },
  ];
}

/** The whole command on a memory map of 10,000 entries, start-up included; best of five. */
function planOfManyEntries(): Row {
  const folder = mkdtempSync(join(tmpdir(), 'tdxlab-bench-'));
  const log = join(folder, 'many.dmesg');
  const lines = Array.from({ length: 10_000 }, (_, i) => {
    const start = 0x1_0000_0000 + i * 0x40_0000;
    const end = start + 0x3f_efff;
    const word = (n: number): string => n.toString(16).padStart(16, '0');
    return `BIOS-e820: [mem 0x${word(start)}-0x${word(end)}] usable`;
  });
  writeFileSync(log, `${lines.join('\n')}\n`);
  const times = Array.from({ length: 5 }, () => {
    const begin = performance.now();
    const bin = join(HERE, '..', 'bin', 'tdxlab.mjs');
    const { status } = spawnSync(process.execPath, [bin, 'plan', '--json', log], { stdio: 'ignore' });
    if (status !== 0 && status !== 1) throw new Error(`plan ended with ${status}`);
    return performance.now() - begin;
  });
  rmSync(folder, { recursive: true });
  return {
    what: 'plan of 10,000 e820 entries, whole command',
    measured: Math.min(...times) / 1000,
    unit: 's',
    limit: ['<=', 0.5],
  };
}

/** The whole command `measure` on a firmware image of 2 MiB, in both page orders; best of five. */
function measureOfImage(): Row {
  const { ms = 0 } = child('measure.ts');
  return {
    what: 'measure of a 2 MiB image, whole command',
    measured: ms / 1000,
    unit: 's',
    limit: ['<=', 0.25],
  };
}

function sysRd(): Row[] {
  const { wrapped = 0, raw = 0, perFieldUs = 0, rdallUs = 0 } = child('sys-rd.ts');
  return [
    {
      what: 'SYS.RD through the kernel wrapper',
      measured: wrapped,
      unit: 'calls/s',
      limit: ['>=', 1_000_000],
    },
    { what: 'SYS.RD: bare instruction / through the wrapper', measured: raw / wrapped, unit: 'x' },
    { what: 'all fields: SYS.RD one by one / SYS.RDALL', measured: perFieldUs / rdallUs, unit: 'x' },
  ];
}

function trustDomains(): Row[] {
  const { buildMs = 0, hashMs = 0 } = child('td-build.ts');
  const { augPerSecond = 0, acceptPerSecond = 0, stateMib = 0 } = child('augment.ts');
  const few = child('many-tds.ts', '100');
  const many = child('many-tds.ts', '500');
  return [
    {
      what: 'TD of 512 measured pages / bare SHA-384',
      measured: buildMs / hashMs,
      unit: 'x',
      limit: ['<=', 1.5],
    },
    { what: 'MEM.PAGE.AUG of 1 GiB', measured: augPerSecond, unit: 'pages/s', limit: ['>=', 400_000] },
    { what: 'MEM.PAGE.ACCEPT of 1 GiB', measured: acceptPerSecond, unit: 'pages/s', limit: ['>=', 400_000] },
    { what: 'memory for that beside contents', measured: stateMib, unit: 'MiB', limit: ['<=', 40] },
    {
      what: '500 TDs of 4 vCPUs: time each / of 100 TDs',
      measured: (many.perTdMs ?? 0) / (few.perTdMs ?? 1),
      unit: 'x',
    },
  ];
}

/** 50 times as many pages where they are large: the goal for conversions of 2 MiB. */
const LARGE_PAGE_FACTOR = 50;
const CONVERSIONS_PER_SECOND = 150_000;

function conversions(): Row[] {
  const row = (what: string, limit: number, ...args: string[]): Row => ({
    what: `TD memory to shared and back, ${what}`,
    measured: child('convert.ts', ...args).pagesPerSecond ?? 0,
    unit: 'pages/s',
    limit: ['>=', limit],
  });
  return [
    row('4 KiB pages', CONVERSIONS_PER_SECOND, '4k'),
    row('4 KiB pages, one epoch a zap', CONVERSIONS_PER_SECOND, '4k', 'zap'),
    row('2 MiB pages', LARGE_PAGE_FACTOR * CONVERSIONS_PER_SECOND, '2m'),
  ];
}

/** What a large TD takes when its guest has touched 1 % of it. */
function touchedTd(): Row[] {
  const { touchedPages = 0, pagesTaken = 0, stateMib = 0, framesMib = 0 } = child('touched-td.ts');
  const name = 'TD of 64 GiB, 1 % touched';
  return [
    { what: `${name}: pages / touched`, measured: pagesTaken / touchedPages, unit: 'x', limit: ['<=', 1.01] },
    { what: `${name}: beside contents`, measured: stateMib - framesMib, unit: 'MiB', limit: ['<=', 200] },
  ];
}

/** The exhaustive mode of `tdxlab explore`, on one core. */
function states(): Row {
  const { perSecond = 0 } = child('states.ts');
  return {
    what: 'states of an exhaustive search',
    measured: perSecond,
    unit: 'states/s',
    limit: ['>=', 50_000],
  };
}

function scenarioEvents(): Row {
  return {
    what: 'events of a scenario on a 2 TiB host',
    measured: child('events.ts').perSecond ?? 0,
    unit: 'events/s',
    limit: ['>=', 10_000],
  };
}

/** The whole command on a shipped scenario, under all policies; the longest of three kinds. */
function compareOfShipped(): Row {
  const bin = join(HERE, '..', 'bin', 'tdxlab.mjs');
  const times = ['kmem-hot-add', 'keyid-shortage', 'kexec-with-erratum'].map((name) => {
    const begin = performance.now();
    const { status } = spawnSync(process.execPath, [bin, 'compare', '--json', name], { stdio: 'ignore' });
    if (status !== 0) throw new Error(`compare ${name} ended with ${status}`);
    return performance.now() - begin;
  });
  return {
    what: 'compare of a shipped scenario, all policies',
    measured: Math.max(...times) / 1000,
    unit: 's',
    limit: ['<=', 10],
  };
}

const rows: Row[] = [
  ...bringUp(2, 2, 2, 250),
  ...bringUp(16, 8, 20, 600),
  planOfManyEntries(),
  measureOfImage(),
  ...sysRd(),
  ...trustDomains(),
  ...conversions(),
  ...touchedTd(),
  scenarioEvents(),
  compareOfShipped(),
  states(),
];
for (const { what, measured, unit, limit } of rows) {
  const figure = measured >= 1000 ? Math.round(measured).toLocaleString('en-US') : measured.toFixed(2);
  const met =
    limit === undefined
      ? ''
      : (limit[0] === '<=' ? measured <= limit[1] : measured >= limit[1])
        ? 'met'
        : 'MISSED';
  const aim = limit === undefined ? '' : `${limit[0]} ${limit[1].toLocaleString('en-US')}`;
  console.log(`${what.padEnd(52)} ${figure.padStart(12)} ${unit.padEnd(8)} ${aim.padStart(12)} ${met}`);
}
mkdirSync(join(HERE, 'results'), { recursive: true });
writeFileSync(join(HERE, 'results', 'latest.json'), `${JSON.stringify(rows, null, 2)}\n`);
