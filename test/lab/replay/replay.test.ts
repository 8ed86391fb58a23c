import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../../src/abi/input-error.ts';
import { replayFiles, replayVectors } from '../../../src/lab/replay/replay.ts';
import { NATIVE_CPUID, NATIVE_MSRS } from '../../../src/machine/native-platform.ts';

const hexNumber = (value: number | bigint): string => `0x${value.toString(16)}`;

/** One package of two LPs like the machines the vectors were recorded on. */
const PLATFORM = {
  t: 'platform',
  module: '1.5.25',
  name: 'small',
  maxpa: 52,
  packages: 1,
  apic_ids: [0, 1],
  cmrs: [['0x0', '0xc0000000']],
  seamrr: ['0x3c0000000', '0x10000000'],
  tsc: '0x3b9aca00',
  rng: { alg: 'xorshift64 13/7/17', seed: '0x1234' },
  cpuid: Object.fromEntries(
    Object.entries(NATIVE_CPUID).map(([key, values]) => [key, values.map(hexNumber)]),
  ),
  msr: {
    ...Object.fromEntries(
      Object.entries(NATIVE_MSRS).map(([key, value]) => [hexNumber(Number(key)), hexNumber(value)]),
    ),
    '0x87': '0x200000001f',
    '0x981': '0x3f600000005',
    '0x982': '0x5005600000003',
    '0x1400': '0x3c0000008',
    '0x1401': '0xffffff0000c00',
  },
};
const INIT = { t: 'seamcall', lp: 0, in: { rax: '0x21' }, rng: 1, out: {} };
const jsonl = (...lines: readonly unknown[]): string => lines.map((line) => JSON.stringify(line)).join('\n');
const replay = (...lines: readonly unknown[]) => replayVectors(jsonl(PLATFORM, ...lines));

describe('replay', () => {
  it('agrees with a sequence that is right', () => {
    const result = replay(
      INIT,
      { t: 'env', rng_fail: 1 },
      {
        t: 'seamcall',
        lp: 1,
        in: { rax: '0x21', r9: '0x7', r15: '0x9' },
        out: { rax: '0xc000050000000000', r15: '0x9' },
      },
      {
        t: 'seamcall_repeat',
        lp: 0,
        count: 2,
        in: { rax: '0x23' },
        step: {},
        out_first: {},
        out_last: { rax: '0xc000050300000000' },
        status_counts: { '0x0': 1, '0xc000050300000000': 1 },
      },
      { t: 'write', pa: '0x1000', hex: '0102', len: 4 },
      { t: 'expect', pa: '0x1000', hkid: 0, len: 6, hex: '0102' },
      { t: 'note', text: 'nothing' },
    );
    expect(result).toMatchObject({ name: 'small', calls: 4, expects: 1, mismatches: [] });
  });

  it('reports each register that differs, with its line and leaf', () => {
    const { mismatches } = replay(INIT, {
      t: 'seamcall',
      lp: 0,
      in: { rax: '0x23', rcx: '0x5' },
      out: { rcx: '0x5', rdx: '0x1' },
    });
    expect(mismatches).toEqual([
      { line: 3, what: 'TDH.SYS.LP.INIT: rcx', field: 'rcx', expected: '0x5', actual: '0x0' },
      { line: 3, what: 'TDH.SYS.LP.INIT: rdx', field: 'rdx', expected: '0x1', actual: '0x0' },
    ]);
  });

  it('reports random numbers, memory and counts of statuses that differ', () => {
    const { mismatches } = replay(
      { ...INIT, rng: 3 },
      { t: 'expect', pa: '0x2000', len: 16, hex: '00ff' },
      {
        t: 'seamcall_repeat',
        lp: 0,
        count: 1,
        in: { rax: '0x23' },
        step: {},
        out_first: {},
        out_last: {},
        status_counts: { '0x5': 1 },
      },
    );
    expect(mismatches.map(({ field }) => field)).toEqual([
      'random',
      'memory at 0x2001',
      'calls with status 0x5',
      'calls with status 0x0',
    ]);
  });

  it('reports what it does not support instead of passing over it', () => {
    const text = jsonl(
      PLATFORM,
      { t: 'guest_state', lp: 0, set: { rip: '0x1000' } },
      { t: 'guest', lp: 0, tdvpr: '0x0', exit: 77, rip: '0x1000', in: {}, result: 'resumed' },
      { t: 'env', lock: { obj: 'RTMR', tdr: '0x1000', held: 1 } },
      { t: 'something new' },
      { t: 'seamcall', lp: 0, in: { rax: '0x0' }, entered: true },
    );
    const { mismatches } = replayVectors(text, { guestPort: null });
    expect(mismatches.map(({ line }) => line)).toEqual([2, 3, 4, 5, 6]);
  });

  it('holds locks and changes the environment as told', () => {
    const { mismatches } = replay(
      { t: 'env', lock: { obj: 'SYS', index: 0, held: 1 } },
      { t: 'seamcall', lp: 0, in: { rax: '0x21' }, out: { rax: '0x8000020200000000' } },
      { t: 'env', lock: { obj: 'SYS', index: 0, held: 0 } },
      { t: 'env', seam_caps: '0x0' },
      { t: 'seamcall', lp: 0, in: { rax: '0x21' }, out: { rax: '0xc000050d00000000' } },
      { t: 'env', seam_caps: '0x7f', msr: { '0x1a0': '0x440081' } },
      { t: 'seamcall', lp: 0, in: { rax: '0x21' }, out: { rax: '0xc000090100000000' } },
      { t: 'env', msr: { '0x1a0': '0x40081' }, handoff: { module_hv: 2 } },
      { t: 'seamcall', lp: 0, in: { rax: '0x21' }, out: { rax: '0xc000050a00000000' } },
      { t: 'reload', text: 'the environment stays' },
      { t: 'seamcall', lp: 0, in: { rax: '0x21' }, out: { rax: '0xc000050a00000000' } },
    );
    expect(mismatches).toEqual([]);
  });
});

describe('files', () => {
  it('are read plain and compressed', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'replay-'));
    const [plain, compressed] = [join(directory, 'a.jsonl'), join(directory, 'b.jsonl.gz')];
    await writeFile(plain, jsonl(PLATFORM, INIT));
    await writeFile(compressed, gzipSync(jsonl(PLATFORM, INIT)));
    const results = await replayFiles([plain, compressed]);
    expect(results.map(({ file, calls, mismatches }) => [file, calls, mismatches.length])).toEqual([
      [plain, 1, 0],
      [compressed, 1, 0],
    ]);
    await writeFile(compressed, new Uint8Array([0x1f, 0x8b, 1, 2]));
    await expect(replayFiles([compressed])).rejects.toThrow(/b\.jsonl\.gz: the gzip data are damaged/);
    await writeFile(plain, 'no json');
    await expect(replayFiles([plain])).rejects.toThrow(/a\.jsonl: line 1: this is not JSON/);
    await expect(replayFiles([join(directory, 'none')])).rejects.toThrow(/none: cannot be read \(ENOENT\)/);
    await rm(directory, { recursive: true });
  });

  it.each([
    ['', /line 1/],
    [jsonl(INIT), /line 1: a sequence begins with its platform/],
    [jsonl({ ...PLATFORM, module: '9.9' }), /release '9\.9' is not known/],
    [jsonl({ ...PLATFORM, maxpa: 'wide' }), /line 1: field 'maxpa'/],
    [jsonl(PLATFORM, { ...INIT, in: { rax: 'x' } }), /line 2: field 'in\.rax'/],
    [jsonl(PLATFORM, { ...INIT, lp: 5 }), /line 2: the platform has no LP 5/],
    [jsonl(PLATFORM, PLATFORM), /line 2: a second platform/],
    [jsonl(PLATFORM, 7), /line 2: the line has no type/],
  ])('that cannot be used are refused with a sentence (%#)', (text, sentence) => {
    expect(() => replayVectors(text)).toThrow(sentence);
  });

  it('of any content give a result or an InputError', () => {
    const line = fc.oneof(
      fc.json(),
      fc.string(),
      fc.constantFrom(PLATFORM, INIT).map((value) => JSON.stringify(value)),
      fc
        .record({
          t: fc.constantFrom('env', 'write', 'fill', 'expect', 'seamcall', 'guest', 'x'),
          lp: fc.nat(4),
          pa: fc.string(),
        })
        .map((value) => JSON.stringify(value)),
    );
    fc.assert(
      fc.property(fc.array(line, { maxLength: 8 }), (lines) => {
        try {
          expect(replayVectors([JSON.stringify(PLATFORM), ...lines].join('\n')).name).toBe('small');
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
    );
  });
});
