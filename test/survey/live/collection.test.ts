import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { InputError } from '../../../src/abi/input-error.ts';
import { diagnose } from '../../../src/lab/doctor/diagnose.ts';
import { type Collection, collectHost } from '../../../src/survey/live/collection.ts';
import { parseCpuList } from '../../../src/survey/live/cpu-facts.ts';
import { DirectoryTree } from '../../../src/survey/live/file-tree.ts';
import { ITEMS, PRESENCES } from '../../../src/survey/live/items.ts';
import {
  keepCommandLine,
  keepConfig,
  keepCpuinfo,
  keepIomem,
  keepLog,
} from '../../../src/survey/live/keep.ts';
import { lineOfRecord } from '../../../src/survey/live/kernel-log.ts';
import { readMachine } from '../../../src/survey/live/read-machine.ts';
import { storedHost } from '../../../src/survey/live/stored-host.ts';
import { packTar, unpackTar } from '../../../src/survey/live/tar.ts';
import { writeCollection } from '../../../src/survey/live/write-collection.ts';
import { changed, type FakeFiles, GOOD_HOST, writeRoot } from '../../support/fake-root.ts';

const folder = mkdtempSync(join(tmpdir(), 'tdxlab-collect-'));
afterAll(() => rmSync(folder, { recursive: true }));

let count = 0;
const fresh = (ending = ''): string => join(folder, `out-${count++}${ending}`);
const collected = (files: FakeFiles): Collection => readMachine(writeRoot(files, folder));

describe('collect', () => {
  it.each(['', '.tar.gz', '.tgz'])('writes what reads back the same (%s)', (ending) => {
    const collection = collected(
      changed({
        '/proc/config.gz': gzipSync('CONFIG_INTEL_TDX_HOST=y\n'),
        '/sys/devices/system/memory/memory7/state': 'offline\n',
        '/etc/modprobe.d/tdx.conf': 'options kvm_intel tdx=1\n',
      }),
    );
    const out = fresh(ending);
    writeCollection(collection, out);
    expect(readMachine(out)).toEqual(collection);
    expect(collection.files.has('/sys/devices/system/memory/memory7/state')).toBe(true);
    expect(collection.files.has('/sys/devices/system/memory/memory0/state')).toBe(false);
  });

  it('keeps why something could not be read, devices, and what a log was not', () => {
    const source = storedHost(writeRoot(changed({ '/kernel.log': undefined }), folder));
    const denied = { state: 'denied', why: 'this user may not read it' } as const;
    const collection = collectHost({
      ...source,
      kernelLog: () => denied,
      tree: {
        read: (path) => (path.endsWith('SRAT') || path.endsWith('.conf') ? denied : source.tree.read(path)),
        list: (path) => (path === '/etc/modprobe.d' ? ['secret.conf'] : source.tree.list(path)),
        access: (path) => (path === '/dev/kvm' ? 'denied' : source.tree.access(path)),
      },
    });
    const out = fresh('.tar.gz');
    writeCollection(collection, out);
    const back = readMachine(out);
    expect(back).toEqual(collection);
    expect(back.log).toEqual(denied);
    expect(back.presences.get('/dev/kvm')).toBe('denied');
    expect(back.missing.get('/sys/firmware/acpi/tables/SRAT')).toEqual(denied);
    expect(back.missing.get('/etc/modprobe.d/secret.conf')).toEqual(denied);
  });

  it('gives the same diagnosis as the machine it is of', async () => {
    const root = writeRoot(GOOD_HOST, folder);
    const out = fresh('.tar.gz');
    writeCollection(readMachine(root), out);
    expect(await diagnose(readMachine(out))).toEqual(await diagnose(readMachine(root)));
  });

  it('gives the same diagnosis of the machine this runs on', async () => {
    const here = readMachine();
    const out = fresh();
    writeCollection(here, out);
    expect(await diagnose(readMachine(out))).toEqual(await diagnose(here));
  });

  it('holds no secret of those that lie about', () => {
    const out = fresh();
    writeCollection(collected(changed({ '/proc/iomem': '00000000-00000fff : secret PCI device\n' })), out);
    const names = readdirSync(out, { recursive: true, encoding: 'utf8' });
    expect(names).toContain('kernel.log');
    for (const name of names.filter((one) => /\.|proc|sys\/[cf]/.test(one))) {
      const path = join(out, name);
      const text = readdirSync(out, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile() && join(entry.parentPath, entry.name) === path)
        .map(() => readFileSync(path, 'latin1'))
        .join('');
      expect(text).not.toContain('secret');
    }
    expect(names.filter((name) => /serial|hostname|address/.test(name))).toEqual([]);
  });

  it('overwrites nothing', () => {
    const collection = collected(GOOD_HOST);
    const [archive, directory] = [fresh('.tgz'), fresh()];
    for (const out of [archive, directory]) {
      writeCollection(collection, out);
      expect(() => writeCollection(collection, out)).toThrow(InputError);
    }
    expect(() => writeCollection(collection, join(archive, 'below'))).toThrow(InputError);
  });

  it('is listed in the documentation, file by file', () => {
    const text = readFileSync(fileURLToPath(new URL('../../../docs/doctor.md', import.meta.url)), 'utf8');
    for (const { path, tells, keep } of ITEMS)
      expect(text).toContain(`| \`${path}\` | ${tells} | ${keep === undefined ? 'whole' : 'part'} |`);
    for (const path of PRESENCES) expect(text).toContain(`\`${path}\``);
  });
});

describe('what is kept of a file', () => {
  it('of a log: the kernel about TDX and memory, without hosts and programs', () => {
    const text = [
      '<5>[    0.000000] Linux version 6.16.0-9-generic (buildd@secret) (gcc) #9 SMP',
      'Jan 01 00:00:00 secret kernel: Command line: root=secret nohibernate -- nohibernate=secret',
      '[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009ffff] usable',
      '[    0.1] systemd[1]: Hostname set to <secret-tdx: >.',
      '[    1.4] virt/tdx: BIOS enabled: private KeyID range [64, 128)',
      '[    1.5] e1000e 0000:00:19.0 eth0: 02:00:5e:10:00:00 secret',
    ].join('\n');
    expect(keepLog(text).split('\n')).toEqual([
      '[    0.000000] Linux version 6.16.0-9-generic',
      'Command line: nohibernate',
      '[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009ffff] usable',
      '[    1.4] virt/tdx: BIOS enabled: private KeyID range [64, 128)',
      '',
    ]);
  });

  it('changes nothing when it is applied again', () => {
    const lines = fc.array(
      fc.oneof(
        fc.string(),
        fc.constantFrom(
          ...Object.values(GOOD_HOST).flatMap((text) => (typeof text === 'string' ? text.split('\n') : [])),
          'Jan 01 00:00:00 host kernel: [    0.1] tdx: Guest detected',
          '<6><6>[ 1] Linux version 1 kernel: Command line: mem=4G',
        ),
      ),
    );
    fc.assert(
      fc.property(
        lines.map((all) => all.join('\n')),
        (text) => {
          for (const keep of [keepLog, keepCpuinfo, keepCommandLine, keepConfig, keepIomem])
            expect(keep(keep(text))).toBe(keep(text));
        },
      ),
    );
  });

  it('of a record of /dev/kmsg: its text, when it is the kernel that speaks', () => {
    const record = '6,339,1423525,-;virt/tdx: BIOS enabled\n SUBSYSTEM=x\n';
    expect(lineOfRecord(record)).toBe('[    1.423525] virt/tdx: BIOS enabled');
    expect(lineOfRecord('30,340,1423525,-;systemd[1]: Hostname set to <host>.\n')).toBeUndefined();
    expect(lineOfRecord('nonsense')).toBeUndefined();
  });
});

describe('a stored host', () => {
  it('is refused with one sentence when there is none', () => {
    const text = join(folder, 'text');
    writeFileSync(text, 'no archive');
    const damaged = join(folder, 'damaged.tar.gz');
    writeFileSync(damaged, gzipSync('x'.repeat(2000)));
    const cut = join(folder, 'cut.tar.gz');
    writeFileSync(cut, gzipSync(packTar(new Map([['a', new Uint8Array(600)]]))).subarray(0, 40));
    for (const path of [join(folder, 'nowhere'), text, damaged, cut, '/dev/null'])
      expect(() => storedHost(path)).toThrow(InputError);
  });

  it('is never read outside of its directory', () => {
    const outside = join(folder, 'outside.txt');
    writeFileSync(outside, 'of another machine');
    const root = writeRoot({ '/proc/sys/kernel/osrelease': '6.16.0' }, folder);
    symlinkSync(outside, join(root, 'proc/cmdline'));
    mkdirSync(join(root, 'dev'));
    symlinkSync('/dev/null', join(root, 'dev/kvm'));
    const tree = new DirectoryTree(root);
    expect(tree.read('/proc/cmdline').state).toBe('absent');
    expect(tree.read('/proc/../../outside.txt').state).toBe('absent');
    expect(tree.access('/dev/kvm')).toBe('none');
    expect(tree.read('/proc/sys/kernel/osrelease').state).toBe('read');
  });

  it('is found in an archive that holds its directory', () => {
    const collection = collected(GOOD_HOST);
    const out = fresh('.tar.gz');
    writeCollection(collection, out);
    const files = unpackTar(gunzipSync(readFileSync(out)), out);
    const packed = fresh('.tar');
    writeFileSync(packed, packTar(new Map([...files].map(([name, bytes]) => [`./host/${name}`, bytes]))));
    expect(readMachine(packed)).toEqual(collection);
  });
});

describe('tar', () => {
  const names = fc.stringMatching(/^[a-z]{1,8}(?:\/[a-z]{1,8}){0,3}$/);

  it('gives back the files it was given', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.tuple(names, fc.uint8Array()), { selector: ([name]) => name, minLength: 1 }),
        (all) => {
          const files = new Map(all);
          const back = unpackTar(packTar(files), 'x');
          expect([...back].map(([name, bytes]) => [name, [...bytes]])).toEqual(
            [...files].map(([name, bytes]) => [name, [...bytes]]),
          );
        },
      ),
    );
  });

  it('refuses damage, and ends on any bytes', () => {
    const archive = packTar(new Map([['a', new Uint8Array(700)]]));
    fc.assert(
      fc.property(fc.nat(archive.length - 1), fc.uint8Array({ minLength: 1, maxLength: 64 }), (at, bytes) => {
        const copy = Uint8Array.from(archive);
        copy.set(bytes.subarray(0, copy.length - at), at);
        try {
          unpackTar(copy, 'x');
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
    );
  });
});

describe('lists of CPUs', () => {
  it.each([
    ['0-3,8', [0, 1, 2, 3, 8]],
    ['', []],
    ['5', [5]],
    ['3-1', undefined],
    ['0-99999999', undefined],
    ['x', undefined],
  ] as const)('%s', (text, expected) => expect(parseCpuList(text)).toEqual(expected));
});
