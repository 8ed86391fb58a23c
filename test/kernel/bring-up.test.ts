import { describe, expect, it } from 'vitest';
import { GIB, MIB } from '../../src/abi/address.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { STATUS } from '../../src/abi/status-codes.ts';
import { fragment } from '../../src/kernel/fragment.ts';
import { STAGES, type StageName } from '../../src/kernel/stages.ts';
import { expectCleanFailure, realHost } from './bring-up.ts';

/** Stage in which each leaf is called. */
const STAGE_OF: Readonly<Record<number, StageName>> = {
  [TDH.sysInit]: 'cpus',
  [TDH.sysLpInit]: 'cpus',
  [TDH.sysRd]: 'sysinfo',
  [TDH.sysConfig]: 'config',
  [TDH.sysKeyConfig]: 'key-config',
  [TDH.sysTdmrInit]: 'tdmr-init',
};

/** Stage in which memory for each purpose is allocated. */
const STAGE_OF_PURPOSE: Readonly<Record<string, StageName>> = {
  'vmxon-region': 'cpus',
  'tdmr-list': 'tdmr-list',
  pamt: 'pamts',
  'tdmr-pa-array': 'config',
};

/** Leaves in the order a bring-up calls them. */
async function recordCalls(): Promise<readonly number[]> {
  const { machine, kernel } = realHost();
  const calls: number[] = [];
  machine.seam.fault = (lp) => {
    calls.push(lp.regs.d[0]!);
    return undefined;
  };
  await kernel.boot();
  expect(kernel.state).toBe('initialized');
  return calls;
}

const calls = await recordCalls();

describe('bring-up with the module', () => {
  it('makes the module ready and gives it every PAMT', async () => {
    const { machine, module, kernel } = realHost();
    await kernel.boot();
    expect(kernel.stages.every(({ state }) => state === 'done')).toBe(true);
    expect(module.sysState).toBe('SYS_READY');
    expect(kernel.sysinfo!.version).toMatchObject({ major: 1, minor: 5, update: 25 });
    for (const { pamt } of kernel.tdmrs) {
      expect(machine.memory.ownerAt(pamt.base)).toBe(kernel.detection!.globalKeyId);
      expect(machine.memory.ownerAt(pamt.base + pamt.bytes4k - 1)).toBe(kernel.detection!.globalKeyId);
    }
    expect(calls.filter((leaf) => leaf === TDH.sysTdmrInit)).toHaveLength(11 * 256);
  });

  it.each(['memblock', 'cmr'] as const)('accepts TDMRs with holes from %s', async (holes) => {
    const { kernel } = realHost({ policy: { holes } });
    await kernel.boot();
    expect(kernel.state).toBe('initialized');
  });

  it('comes up with Dynamic PAMT at a hundredth of the memory', async () => {
    const [fixed, dynamic] = [realHost(), realHost({ policy: { dynamicPamt: true } })];
    await Promise.all([fixed.kernel.boot(), dynamic.kernel.boot()]);
    expect(dynamic.kernel.enabled).toMatchObject({ dynamicPamt: true });
    expect(dynamic.kernel.enabled!.pamtKb * 90).toBeLessThan(fixed.kernel.enabled!.pamtKb);
  });

  it('is refused by the module while a CPU the BIOS enabled stays offline', async () => {
    const host = realHost({ hints: { commandLine: 'maxcpus=3' } });
    await host.kernel.boot();
    await expectCleanFailure(host, 'config');
    const { reason } = host.kernel.stages.find(({ state }) => state === 'failed')!;
    expect(reason!.data).toMatchObject({ statusName: 'TDX_SYS_CONFIG_NOT_PENDING' });
  });

  it('is refused by the module when memory is not convertible', async () => {
    const host = realHost({}, { cmrs: [{ start: MIB, end: 2 * GIB }] });
    await host.kernel.boot();
    await expectCleanFailure(host, 'config');
  });

  it('needs no entropy twice: a shortage of nine tries goes unnoticed', async () => {
    const { machine, kernel } = realHost();
    machine.seam.fault = (_, index) => (index < 9 ? STATUS.TDX_RND_NO_ENTROPY : undefined);
    await kernel.boot();
    expect(kernel.state).toBe('initialized');
  });

  it('finds memory early that it does not find late', async () => {
    const early = realHost({ policy: { enable: 'first-user' } });
    await early.kernel.boot();
    await early.kernel.enableTdx();
    const late = realHost({ policy: { enable: 'first-user' } });
    await late.kernel.boot();
    const pinned = fragment(late.kernel.allocator, { share: 1, seed: 3n });
    await expect(late.kernel.enableTdx()).rejects.toMatchObject({
      errno: 'ENOMEM',
      reason: { code: 'pamt-allocation', data: { stage: 'pamts', tdmr: { start: 0, end: 2 * GIB } } },
    });
    const { free, total } = late.kernel.allocator.accounts()[0]!;
    expect(free / total).toBeGreaterThan(0.99);
    for (const pfn of pinned) late.kernel.allocator.freePages(pfn, 1);
    await expectCleanFailure(late, 'pamts');
  });
});

describe('a failure injected at a SEAMCALL', () => {
  // Every call but most of the thousands of TDH.SYS.TDMR.INIT; the slow suite has them all.
  const points = calls
    .map((leaf, index) => ({ leaf, index }))
    .filter(({ leaf, index }) => leaf !== TDH.sysTdmrInit || index % 251 === 0 || index === calls.length - 1);

  it.each(['leave', 'shutdown'] as const)(
    'leaves a clean state and names the step (onError %s)',
    async (onError) => {
      for (const { leaf, index } of points) {
        const host = realHost({ policy: { onError } });
        host.machine.seam.fault = (_, call) => (call === index ? STATUS.TDX_SYS_BUSY : undefined);
        await host.kernel.boot();
        await expectCleanFailure(host, STAGE_OF[leaf]!);
        expect(host.kernel.stages.find(({ state }) => state === 'failed')).toMatchObject({
          errno: 'EIO',
          reason: { data: { leaf, statusName: 'TDX_SYS_BUSY' } },
        });
      }
    },
  );
});

describe('a failure injected at an allocation', () => {
  it('leaves a clean state and names the step', async () => {
    const purposes: string[] = [];
    const healthy = realHost();
    healthy.kernel.allocator.fault = (purpose) => {
      purposes.push(purpose);
      return false;
    };
    await healthy.kernel.boot();
    expect(new Set(purposes)).toEqual(new Set(Object.keys(STAGE_OF_PURPOSE)));
    for (const [index, purpose] of purposes.entries()) {
      const host = realHost();
      host.kernel.allocator.fault = (_, request) => request === index;
      await host.kernel.boot();
      await expectCleanFailure(host, STAGE_OF_PURPOSE[purpose]!);
      const { errno } = host.kernel.stages.find(({ state }) => state === 'failed')!;
      expect([purpose, errno]).toEqual([purpose, purpose === 'vmxon-region' ? 'EOPNOTSUPP' : 'ENOMEM']);
    }
  });
});

describe('with a scheduler attached', () => {
  it('goes on elsewhere when its CPU goes offline between two calls', async () => {
    const { kernel, machine, module } = realHost({ policy: { enable: 'first-user' } });
    await kernel.boot();
    let turns = 0;
    kernel.schedule = async (where) => {
      if (where === 'tdmr-init' && ++turns === 1000) await kernel.cpuOffline(0);
    };
    await kernel.enableTdx();
    // One before the stage, one after each call.
    expect(turns).toBe(1 + 11 * 256);
    expect(machine.lps[0]!.vmxOperation).toBe(false);
    expect(module.sysState).toBe('SYS_READY');
  });

  it.each(STAGES.slice(STAGES.findIndex(({ name }) => name === 'sysinfo')).map(({ name }) => name))(
    'goes on elsewhere when the boot CPU goes offline before %s',
    async (stage) => {
      const { kernel, module } = realHost({ policy: { enable: 'first-user' } });
      await kernel.boot();
      kernel.schedule = async (where) => {
        if (where === stage && kernel.cpus[0]!.online) await kernel.cpuOffline(0);
      };
      await kernel.enableTdx();
      expect(kernel.cpus[0]!.online).toBe(false);
      expect(module.sysState).toBe('SYS_READY');
    },
  );

  it('decides about memory that is plugged meanwhile when it has ended', async () => {
    const { kernel, machine } = realHost({ policy: { enable: 'first-user', hotplug: 'winner-takes-all' } });
    await kernel.boot();
    const dimm = { start: 16 * GIB, end: 17 * GIB, node: 1, kind: 'ram', state: 'present' } as const;
    kernel.schedule = async (where) => {
      if (where === 'config') machine.hotAddMemory(dimm);
    };
    await kernel.enableTdx();
    await kernel.onlineMemory(dimm).catch(() => undefined);
    expect(kernel.hotplug.offline).toEqual([]);
    expect(kernel.log.entries.at(-1)).toMatchObject({ level: 'err', code: 'hot-add-refused' });
  });

  it('lets no memory go offline before its end', async () => {
    const { kernel } = realHost({ policy: { enable: 'first-user' } });
    await kernel.boot();
    const range = { start: 6 * GIB, end: 7 * GIB };
    const order: string[] = [];
    const enabling = kernel.enableTdx().then(() => order.push('enabled'));
    const offlining = kernel.offlineMemory(range).then(() => order.push('offline'));
    await Promise.all([enabling, offlining]);
    expect(order).toEqual(['enabled', 'offline']);
    expect(kernel.memlist.some(({ startPfn, endPfn }) => startPfn <= 0x18_0000 && endPfn >= 0x1c_0000)).toBe(
      true,
    );
  });

  it('makes memory hot-plug wait for the end of initialisation', async () => {
    const { kernel, machine } = realHost({ policy: { enable: 'first-user' } });
    await kernel.boot();
    const range = { start: 16 * GIB, end: 16 * GIB + 128 * MIB };
    machine.hotAddMemory({ ...range, node: 1, kind: 'ram', state: 'present' });
    const order: string[] = [];
    const enabling = kernel.enableTdx().then(() => order.push('enabled'));
    const onlining = kernel.onlineMemory(range).catch(() => order.push('refused'));
    await Promise.all([enabling, onlining]);
    expect(order).toEqual(['enabled', 'refused']);
  });
});
