import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type DoctorReport, diagnose, STAGES } from '../../../src/lab/doctor/diagnose.ts';
import { collectHost, type HostSource } from '../../../src/survey/live/collection.ts';
import { MemoryTree } from '../../../src/survey/live/file-tree.ts';
import { MSR_NAMES } from '../../../src/survey/live/msrs.ts';
import { GOOD_HOST } from '../../support/fake-root.ts';

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

const BYTES = new Map(
  Object.entries(GOOD_HOST).map(([path, contents]) => {
    return [path, typeof contents === 'string' ? encode(contents) : contents!] as const;
  }),
);

async function doctor(
  files: ReadonlyMap<string, Uint8Array>,
  msrs: readonly bigint[],
): Promise<DoctorReport> {
  const log = files.get('/kernel.log');
  const source: HostSource = {
    platform: 'linux',
    tree: new MemoryTree(files),
    kernelLog: () =>
      log === undefined
        ? { state: 'denied', why: 'this user may not read it' }
        : { state: 'read', value: new TextDecoder().decode(log) },
    msrs: () =>
      new Map(
        MSR_NAMES.map((name, i) => {
          const value = msrs[i];
          return [name, value === undefined ? { state: 'absent', why: 'none' } : { state: 'read', value }];
        }),
      ),
    probes: () => ({}),
  };
  return diagnose(collectHost(source));
}

/** Anything, or what is there with some of it overwritten. */
function damaged(path: string): fc.Arbitrary<Uint8Array | undefined> {
  const original = BYTES.get(path) ?? new Uint8Array(0);
  const patch = fc.tuple(fc.nat(Math.max(original.length - 1, 0)), fc.uint8Array({ maxLength: 20 }));
  return fc.oneof(
    fc.constant(undefined),
    fc.uint8Array({ maxLength: 200 }),
    fc.string({ maxLength: 200 }).map(encode),
    patch.map(([at, bytes]) => {
      const copy = Uint8Array.from(original);
      copy.set(bytes.subarray(0, Math.max(copy.length - at, 0)), Math.min(at, copy.length));
      return copy;
    }),
  );
}

describe('doctor on anything', () => {
  it('gives a whole report whatever bytes are in any file', async () => {
    const paths = [...BYTES.keys(), '/proc/iomem', '/proc/config.gz', '/etc/modprobe.d/a.conf'];
    const changes = fc
      .uniqueArray(fc.constantFrom(...paths), { minLength: 1, maxLength: 6 })
      .chain((chosen) => fc.tuple(...chosen.map((path) => fc.tuple(fc.constant(path), damaged(path)))));
    const msrs = fc.array(fc.bigInt(0n, 2n ** 64n - 1n), { maxLength: MSR_NAMES.length });
    await fc.assert(
      fc.asyncProperty(changes, msrs, async (some, values) => {
        const files = new Map(BYTES);
        for (const [path, bytes] of some) {
          if (bytes === undefined) files.delete(path);
          else files.set(path, bytes);
        }
        const report = await doctor(files, values);
        expect(report.stages.map(({ id }) => id)).toEqual(STAGES.map(({ id }) => id));
        expect(report.says).toMatch(/\.$/);
        for (const { status, says, cause, remedy, toKnow } of report.stages) {
          expect(says).not.toBe('');
          if (status === 'fail') expect([cause, remedy]).toEqual([expect.any(String), expect.any(String)]);
          if (status === 'unknown') expect(toKnow).toEqual(expect.any(String));
        }
      }),
      { numRuns: 300 },
    );
  });

  it('never calls a host ready whose module failed or whose KVM has no TDX', async () => {
    const log = (line: string): Uint8Array =>
      encode(
        new TextDecoder().decode(BYTES.get('/kernel.log')).replace(/virt\/tdx: TDX-Module initialized/, line),
      );
    const off = new Map([...BYTES, ['/sys/module/kvm_intel/parameters/tdx', encode('N\n')] as const]);
    expect((await doctor(off, [])).verdict).toBe('not-ready');
    const failed = new Map([
      ...off,
      ['/kernel.log', log('virt/tdx: module initialization failed (-12)')] as const,
      ['/sys/devices/faux/tdx_host/version', encode('')] as const,
    ]);
    expect((await doctor(failed, [])).says).toContain('(-12)');
  });
});

const HOSTS = fileURLToPath(new URL('../../../../shared/hosts', import.meta.url));
const LOGS = existsSync(HOSTS) ? readdirSync(HOSTS).filter((name) => name.endsWith('.dmesg')) : [];

describe.skipIf(LOGS.length === 0)(
  'doctor on the logs of real hosts (skipped without ../shared/hosts)',
  () => {
    const expected: Readonly<Record<string, readonly [initialisation: string, plan: boolean]>> = {
      'emr-256g-4node-fails.dmesg': ['fail', false],
      'emr-256g-4node-works.dmesg': ['pass', true],
      'spr-256g-2node.dmesg': ['pass', true],
    };

    it.each(LOGS)('%s', async (name) => {
      const files = new Map(BYTES);
      for (const path of ['/sys/module/kvm_intel/parameters/tdx', '/sys/devices/faux/tdx_host/version'])
        files.delete(path);
      files.delete('/sys/firmware/acpi/tables/SRAT');
      files.set('/kernel.log', readFileSync(join(HOSTS, name)));
      const report = await doctor(files, []);
      const [status, ok] = expected[name] ?? ['unknown', undefined];
      expect(report.stages.find(({ id }) => id === 'initialisation')?.status).toBe(status);
      if (ok !== undefined) expect(report.plan?.ok).toBe(ok);
      if (ok === false) {
        expect(report.says).toContain('(-28)');
        expect(report.plan?.remedies.length).toBeGreaterThan(0);
      }
    });
  },
);
