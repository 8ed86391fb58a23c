import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { MIB, PAGE_4K } from '../../../src/abi/address.ts';
import { InputError } from '../../../src/abi/input-error.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { RCX, setRegNumber } from '../../../src/abi/registers.ts';
import { SEAMLDR_STATUS } from '../../../src/abi/seamldr-status.ts';
import { startProcess } from '../../../src/kernel/process/process.ts';
import { seamcall, seamldrCall } from '../../../src/kernel/seamcall.ts';
import { createHost, type Host } from '../../../src/lab/host.ts';
import { isSavedHost, SAVED_HOST_FORMAT } from '../../../src/lab/snapshot/container.ts';
import { loadHost, saveHost } from '../../../src/lab/snapshot/save-host.ts';
import { LabTd } from '../../../src/lab/td/lab-td.ts';
import type { TdxModule } from '../../../src/module/tdx-module.ts';
import { readHostFiles } from '../../../src/survey/read-host.ts';
import { TINY } from '../../kernel/tiny-machine.ts';

const FORMAT_OFFSET = 8;
/** P-SEAMLDR's leaf. */
const INSTALL = 1;

async function bootedHost(description = TINY): Promise<Host> {
  const host = createHost(description);
  await host.kernel.boot();
  return host;
}

/** The one sentence with which bytes are refused. */
function refusal(bytes: Uint8Array): string {
  try {
    loadHost(bytes, 'x.host');
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as InputError).message;
  }
  throw new Error('the bytes were accepted');
}

describe('saveHost', () => {
  it('keeps a 2 TiB host with a small TD in far less than a megabyte', async () => {
    const { machine } = await readHostFiles(['spr-2t-2node']);
    const host = await bootedHost(machine);
    LabTd.build(host.kernel, { pages: [{ gpa: PAGE_4K, contents: Uint8Array.of(1, 2, 3) }] });
    const bytes = saveHost(host);
    expect(bytes.length).toBeLessThan(MIB / 4);
    expect(Buffer.compare(saveHost(loadHost(bytes)), bytes)).toBe(0);
  });

  it.each([
    ['powered on and not booted', () => createHost(TINY)],
    ['without a module', () => createHost({ ...TINY, module: null })],
    ['without private KeyIDs', () => createHost({ ...TINY, keyIds: null })],
    [
      'with Dynamic PAMT',
      () => createHost({ ...TINY, physicalAddressBits: 46 }, { policy: { dynamicPamt: true } }),
    ],
    [
      'whose initialisation fails',
      () => createHost(TINY, { policy: { trustCmrCount: true }, module: '1.0' }),
    ],
  ])('saves a host %s', async (_, make) => {
    for (const boots of [false, true]) {
      const host = make();
      if (boots) await host.kernel.boot();
      const loaded = loadHost(saveHost(host));
      if (!boots) for (const { kernel } of [host, loaded]) await kernel.boot();
      expect(loaded.kernel.stages).toEqual(host.kernel.stages);
      expect(loaded.kernel.log.entries).toEqual(host.kernel.log.entries);
      expect(loaded.kernel.sysinfo).toEqual(host.kernel.sysinfo);
      expect(Buffer.compare(saveHost(loaded), saveHost(host))).toBe(0);
    }
  });

  it('keeps a processor that was plugged in, dirty cache lines, poison and locks', async () => {
    const description = {
      ...TINY,
      processors: [...TINY.processors, { apicId: 2, package: 0, node: 0, present: false }],
    };
    const host = await bootedHost(description);
    const { machine, kernel } = host;
    machine.hotAddProcessor(2);
    machine.lps[0]!.store(5 * MIB, Uint8Array.of(7));
    const td = LabTd.build(kernel);
    machine.memory.write64(td.tdr, 1n, 0);
    const module = machine.seam.module as TdxModule;
    module.kot.lock.word = 1;
    module.pamt.entry(td.tdr, 0).lockWord = 2;
    const loaded = loadHost(saveHost(host));
    const loadedModule = loaded.machine.seam.module as TdxModule;
    expect(loaded.kernel.cpus[4]!.lp.apicId).toBe(2);
    expect(loaded.machine.packages[0]!.cache.dirtyPages).toBe(machine.packages[0]!.cache.dirtyPages);
    expect(loaded.machine.memory.isPoisoned(td.tdr)).toBe(true);
    expect(loadedModule.kot.lock.word).toBe(1);
    expect(loadedModule.pamt.entry(td.tdr, 0).tryLock('exclusive')).toBe(0n);
    expect(Buffer.compare(saveHost(loadHost(saveHost(host))), saveHost(host))).toBe(0);
    // The loaded kernel hears of hot-plug as the saved one did.
    expect(loaded.kernel.memoryNotifiers.count).toBe(1);
  });

  it('keeps an installation under way, with the module before, which a failure brings back', async () => {
    const host = await bootedHost({ ...TINY, seamLoader: { version: '1.5.00', remainingUpdates: 3 } });
    const install = ({ kernel }: Host, cpu: number): bigint => seamldrCall(kernel.cpus[cpu]!, INSTALL);
    expect(install(host, 0)).toBe(0n);
    expect(host.machine.seam.module).toBeNull();
    const loaded = loadHost(saveHost(host));
    for (const each of [host, loaded]) {
      expect(install(each, 0)).toBe(SEAMLDR_STATUS.PSEAMLDR_EBADCALL);
      for (const cpu of [1, 2, 3]) each.kernel.cpus[cpu]!.lp.regs.q.fill(0n);
      expect([1, 2, 3].map((cpu) => install(each, cpu)).at(-1)).toBe(SEAMLDR_STATUS.PSEAMLDR_EBADSIG);
      expect((each.machine.seam.module as TdxModule).sysState).toBe('SYS_READY');
    }
    expect(Buffer.compare(saveHost(loaded), saveHost(host))).toBe(0);
  });

  it('leaves fault points behind', async () => {
    const host = await bootedHost();
    host.machine.entropy.exhausted = true;
    host.machine.packages[0]!.pconfigOutcome = 'device-busy';
    host.machine.seam.loaderBusy = true;
    const { machine } = loadHost(saveHost(host));
    expect(machine.entropy.exhausted).toBe(false);
    expect(machine.packages[0]!.pconfigOutcome).toBe('ok');
    expect(machine.seam.loaderBusy).toBe(false);
  });

  it('refuses while a vCPU is entered, and not after its TD exit', async () => {
    const host = await bootedHost();
    const td = LabTd.build(host.kernel);
    const { tdvpr } = td.vcpus[0]!;
    setRegNumber(host.machine.lps[0]!.regs, RCX, tdvpr);
    seamcall(host.kernel.cpus[0]!, TDH.vpEnter);
    expect(() => saveHost(host)).toThrow(
      `the host cannot be saved while vCPU 0x${tdvpr.toString(16)} is entered on LP 0; save it after the TD exit`,
    );
    (host.machine.seam.module as TdxModule).running[0]!.leave();
    expect(isSavedHost(saveHost(host))).toBe(true);
  });

  it('refuses while TDX is being initialised', async () => {
    const host = createHost(TINY, { policy: { enable: 'first-user' } });
    await host.kernel.boot();
    const enabling = host.kernel.enableTdx();
    expect(() => saveHost(host)).toThrow(/while TDX initialisation is under way/);
    await enabling;
    expect(loadHost(saveHost(host)).kernel.state).toBe('initialized');
  });

  it('refuses where a hypervisor runs below the kernel', () => {
    expect(() => saveHost(createHost(TINY, { hypervisor: 'pkvm' }))).toThrow(
      /what the hypervisor pkvm keeps/,
    );
  });

  it('refuses while processes run, and names what they have open', async () => {
    const host = await bootedHost();
    const task = startProcess(host.kernel);
    task.memfdCreate('left open');
    expect(() => saveHost(host)).toThrow(/while processes run .*1 process, 1 memfd/);
    await task.exit();
    expect(loadHost(saveHost(host)).kernel.openObjects.total).toBe(0);
  });
});

describe('loadHost', () => {
  let bytes: Uint8Array;
  beforeAll(async () => {
    bytes = saveHost(await bootedHost());
  });

  it('says what is wrong in one sentence', () => {
    const withFormat = (format: number): Uint8Array => {
      const copy = bytes.slice();
      new DataView(copy.buffer).setUint32(FORMAT_OFFSET, format, true);
      return copy;
    };
    expect(refusal(new Uint8Array())).toBe('x.host: not a saved host; make one with --save');
    expect(refusal(bytes.subarray(0, 20))).toBe('x.host: cut short, only 20 bytes of it are there');
    expect(refusal(bytes.subarray(0, -3))).toBe(`x.host: cut short, 3 of ${bytes.length} bytes are missing`);
    expect(refusal(withFormat(SAVED_HOST_FORMAT - 1))).toMatch(
      /saved by an older tdxlab \(format 2, this one reads 3\)/,
    );
    expect(refusal(withFormat(SAVED_HOST_FORMAT + 1))).toMatch(
      /saved by a newer tdxlab \(format 4, this one reads 3\)/,
    );
    expect(refusal(Uint8Array.of(...bytes, 0))).toMatch(/damaged/);
  });

  it('accepts no file in which a bit has changed', () => {
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.nat(7), (at, bit) => {
        const copy = bytes.slice();
        copy[at]! ^= 1 << bit;
        expect(refusal(copy)).toMatch(/^x\.host: /);
      }),
    );
  });

  it('reads bytes that lie inside a larger buffer', () => {
    const larger = new Uint8Array(bytes.length + 7);
    larger.set(bytes, 3);
    expect(loadHost(larger.subarray(3, 3 + bytes.length)).kernel.state).toBe('initialized');
  });
});
