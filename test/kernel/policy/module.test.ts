/** The knobs about the module's life: for each value what was said for it, and against it, happening. */
import { describe, expect, it } from 'vitest';
import { GIB, PAGE_4K } from '../../../src/abi/address.ts';
import type { KernelError } from '../../../src/abi/errno.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { fragment } from '../../../src/kernel/fragment.ts';
import { HostKernel } from '../../../src/kernel/host-kernel.ts';
import { pamtBytes } from '../../../src/kernel/pamt-alloc.ts';
import { PamtPages } from '../../../src/kernel/pamt-pages.ts';
import type { KernelPolicy } from '../../../src/kernel/policy/kernel-policy.ts';
import type { RealHost } from '../bring-up.ts';
import { refusalOf } from '../scripted-host.ts';
import { TINY } from '../tiny-machine.ts';
import { bootedHost, createTd } from './mixed-host.ts';

const usedPages = ({ kernel }: RealHost): number =>
  kernel.allocator.accounts().reduce((sum, { used }) => sum + used, 0);

/** Months of uptime: a pinned page in every free 4 MiB. */
const age = ({ kernel }: RealHost): unknown => fragment(kernel.allocator, { share: 1, seed: 7n });

function failing({ machine }: RealHost, leaf: number, status: bigint): void {
  machine.seam.fault = (lp) => (lp.regs.d[0] === leaf ? status : undefined);
}

describe('enable', () => {
  it('boot: an aged host has TDX, and a host that never runs a TD pays for it', async () => {
    const host = await bootedHost({ enable: 'boot' });
    const waiting = await bootedHost({ enable: 'first-user' });
    age(host);
    expect(await refusalOf(host.kernel.getTdx())).toBe('not refused');
    const paidKb = (usedPages(await bootedHost()) - usedPages(waiting)) * 4;
    expect(paidKb).toBeGreaterThanOrEqual(host.kernel.enabled!.pamtKb);
  });

  it('first-user: costs nothing until then, and fails on an aged host', async () => {
    const host = await bootedHost({ enable: 'first-user' });
    expect(usedPages(host)).toBe(TINY.processors.length);
    age(host);
    expect(await refusalOf(host.kernel.getTdx())).toBe('ENOMEM pamt-allocation');
  });

  it('opt-in: costs nothing, and there are no TDs before the next boot', async () => {
    const host = await bootedHost({ enable: 'opt-in' });
    expect(usedPages(host)).toBe(TINY.processors.length);
    expect(await refusalOf(host.kernel.getTdx())).toBe('ENODEV tdx-not-initialized');
    expect(() => host.kernel.setPolicy('optedIn', true)).not.toThrow();
  });

  it.each([false, true])(
    'primed: proves that TDs can be made and leaves nothing behind (dynamic PAMT %s)',
    async (dynamicPamt) => {
      const plain = await bootedHost({ dynamicPamt }, { physicalAddressBits: 48 });
      const primed = await bootedHost({ enable: 'primed', dynamicPamt }, { physicalAddressBits: 48 });
      expect([primed.kernel.state, primed.kernel.keyIds.current]).toEqual(['initialized', 0]);
      expect(primed.kernel.enabled!.dynamicPamt).toBe(dynamicPamt);
      expect(primed.kernel.allocator.accounts()).toEqual(plain.kernel.allocator.accounts());
      primed.kernel.allocator.audit();
    },
  );

  it('primed: a host on which no TD can be made has no TDX, which under boot only the first user hears', async () => {
    for (const [enable, state] of [
      ['primed', 'disabled'],
      ['boot', 'initialized'],
    ] as const) {
      const { machine, module } = await bootedHost({ enable: 'opt-in' });
      const host = { kernel: new HostKernel(machine, { policy: { enable } }), machine, module };
      failing(host, TDH.mngKeyConfig, STATUS.TDX_KEY_GENERATION_FAILED);
      await host.kernel.boot();
      expect(host.kernel.state).toBe(state);
    }
  });
});

describe('dynamicPamt', () => {
  const WIDTH = { physicalAddressBits: 48 };

  it('costs a hundredth of what static PAMT costs', async () => {
    const kb = async (dynamicPamt: boolean): Promise<number> =>
      (await bootedHost({ dynamicPamt }, WIDTH)).kernel.enabled!.pamtKb;
    expect(await kb(true)).toBeLessThan((await kb(false)) / 20);
  });

  it('fails to give a TD a page for want of its metadata, which static PAMT never does', async () => {
    const { kernel } = await bootedHost({ dynamicPamt: true }, WIDTH);
    const pamt = new PamtPages(kernel.tdMemory);
    const page = kernel.tdMemory.alloc(0, { purpose: 'test' }) * PAGE_4K;
    kernel.allocator.fault = (purpose) => purpose === 'pamt-pair';
    expect(() => pamt.get(kernel.cpus[0]!, page)).toThrow(/no page is free for a TD \(pamt-pair\)/);
  });
});

describe('pamtPlacement', () => {
  const nodesOf = async (pamtPlacement: KernelPolicy['pamtPlacement']): Promise<readonly number[]> =>
    (await bootedHost({ pamtPlacement })).kernel.tdmrs.map(({ pamt }) => pamt.node);

  it('local: each PAMT is on the node of its TDMR, so that the node with more TDMRs pays more', async () => {
    const { kernel } = await bootedHost({ pamtPlacement: 'local' });
    expect(kernel.tdmrs.every(({ node, pamt }) => node === pamt.node)).toBe(true);
    expect((await nodesOf('local')).filter((node) => node === 0).length).toBeGreaterThan(2);
  });

  it('spread: goes round the nodes, so that some PAMT is far from its memory', async () => {
    const nodes = await nodesOf('spread');
    expect(nodes).toEqual(nodes.map((_, i) => i % 2));
    const { kernel } = await bootedHost({ pamtPlacement: 'spread' });
    expect(kernel.tdmrs.some(({ node, pamt }) => node !== pamt.node)).toBe(true);
  });

  it('reserved: an aged host gets its first TD, and one that never runs a TD has paid', async () => {
    const host = await bootedHost({ pamtPlacement: 'reserved', enable: 'first-user' });
    const idle = usedPages(host);
    age(host);
    const aged = usedPages(host);
    expect(await refusalOf(host.kernel.getTdx())).toBe('not refused');
    // What else initialisation takes is small enough for what is left.
    expect(usedPages(host) - aged).toBeLessThan(16);
    const pamt = host.kernel.tdmrs.reduce((sum, tdmr) => sum + pamtBytes(tdmr.pamt), 0);
    expect(idle - TINY.processors.length).toBe(pamt / PAGE_4K);
    host.kernel.allocator.audit();
  });
});

describe('holes and trustCmrCount', () => {
  const splinters = Array.from({ length: 20 }, (_, i) => GIB + i * 2 ** 20);
  const e820 = [
    ...TINY.e820,
    ...splinters.map((start) => ({ start, end: start + PAGE_4K, type: 'acpi-data' as const })),
  ];

  it('memblock: a splintered map has too many holes; cmr: it comes up', async () => {
    const states = async (holes: KernelPolicy['holes']): Promise<string> =>
      (await bootedHost({ holes }, { e820 })).kernel.state;
    expect([await states('memblock'), await states('cmr')]).toEqual(['error', 'initialized']);
  });

  it('memblock: no page outside the TDX memory can be given; cmr: firmware that reports wrong CMRs decides', async () => {
    for (const [holes, taken] of [
      ['memblock', false],
      ['cmr', true],
    ] as const) {
      const host = await bootedHost({ holes }, { e820: e820.slice(0, -18) });
      expect(createTd(host, splinters[0]! / PAGE_4K) === STATUS.TDX_SUCCESS).toBe(taken);
    }
  });
});

describe('onError', () => {
  it('shutdown: the module is not used again, whoever its other users are', async () => {
    const { kernel } = await bootedHost({ onError: 'shutdown' });
    kernel.shutDownTdx({ code: 'test', text: 'a call failed', data: {} });
    expect([kernel.state, kernel.tdMemory.ranges]).toEqual(['disabled', []]);
    expect(await refusalOf(kernel.getTdx())).toBe('ENODEV tdx-not-initialized');
    expect(kernel.memoryBlocks()[0]!.why).toMatchObject({ text: 'a call failed' });
  });
});

describe('kexec', () => {
  /** A kernel that writes part of a line to memory that the module had, then reads it. */
  async function nextKernel(
    kexec: KernelPolicy['kexec'],
    change = {},
  ): Promise<{ tdx: string; write: string }> {
    const { kernel, machine } = await bootedHost({ kexec }, change);
    const { base } = kernel.tdmrs[0]!.pamt;
    const outcome = kernel.kexec();
    expect(outcome.started).toBe(true);
    expect(await refusalOf(Promise.resolve().then(() => kernel.kexec()))).toBe('EIO kernel-stopped');
    const next = new HostKernel(machine);
    await next.boot();
    let write = 'fine';
    try {
      machine.lps[0]!.store(base, new Uint8Array(8));
      machine.lps[0]!.load(base, 64);
    } catch (error) {
      write = (error as Error).name;
    }
    return { tdx: next.state, write };
  }

  it('disable-module: the next kernel has TDX and clean memory', async () => {
    expect((await nextKernel('disable-module', { module: '2.0.08' })).tdx).toBe('initialized');
  });

  it('disable-module: a module without the call is left behind', async () => {
    const { kernel } = await bootedHost({ kexec: 'disable-module' }, { module: '1.5.25' });
    expect(kernel.kexec()).toMatchObject({ moduleDisabled: false, why: { code: 'sys-disable-failed' } });
  });

  it('flush: works with any module, and the next kernel meets a machine check on machines with the erratum', async () => {
    const { tdx, write } = await nextKernel('flush');
    expect([tdx, write]).toEqual(['error', 'MachineCheck']);
    expect(await nextKernel('flush', { cpuModel: 'granite-rapids' })).toEqual({
      tdx: 'error',
      write: 'fine',
    });
  });

  it('refuse: no kernel is started, and a crash leaves no dump', async () => {
    const { kernel, machine } = await bootedHost({ kexec: 'refuse' });
    expect(() => kernel.kexec()).toThrow(/no kernel is started while TDX is enabled/);
    expect(kernel.state).toBe('initialized');
    expect(kernel.kexec({ crash: true })).toMatchObject({ started: false, why: { code: 'crash-reset' } });
    expect(machine.seam.module).not.toBeNull();
  });

  it('of a kernel without TDX leaves nothing to say', async () => {
    const { kernel } = await bootedHost({ kexec: 'refuse' }, { keyIds: null });
    expect(kernel.kexec()).toMatchObject({ started: true, hazard: [], why: { code: 'tdx-off' } });
  });
});

describe('suspend', () => {
  const refusal = (kernel: HostKernel, sleep: 's2idle' | 's3' | 'disk'): string => {
    try {
      kernel.suspend(sleep);
      return 'asleep';
    } catch (error) {
      return (error as KernelError).reason.code;
    }
  };

  it('allow-idle-only: VMX operation ends and comes back; S3 and hibernation are refused', async () => {
    const host = await bootedHost({ suspend: 'allow-idle-only' });
    const { kernel, machine } = host;
    expect([refusal(kernel, 's3'), refusal(kernel, 'disk')]).toEqual(['s3-disabled', 'no-hibernation']);
    expect(refusal(kernel, 's2idle')).toBe('asleep');
    expect(machine.lps.some((lp) => lp.vmxOperation)).toBe(false);
    expect(refusal(kernel, 's2idle')).toBe('asleep');
    kernel.resume();
    expect(machine.lps.every((lp) => lp.vmxOperation)).toBe(true);
    expect(createTd(host, kernel.tdMemory.alloc(0, { purpose: 'test' }))).toBe(STATUS.TDX_SUCCESS);
    expect(() => kernel.resume()).toThrow(/not asleep/);
  });

  it('refuse: not even that, though it does no harm', async () => {
    const { kernel } = await bootedHost({ suspend: 'refuse' });
    expect(refusal(kernel, 's2idle')).toBe('suspend-refused');
  });

  it('does not concern a host without TDX', async () => {
    const { kernel } = await bootedHost({ suspend: 'refuse' }, { keyIds: null });
    expect([refusal(kernel, 's2idle'), refusal(kernel, 's3')]).toEqual(['asleep', 'asleep']);
  });
});

describe('cpuHotAdd', () => {
  const slot = { apicId: 2, package: 0, node: 0, present: false };
  const change = { processors: [...TINY.processors, slot] };

  it('offline-only: the processor is known, and whoever brings it online hears only then', async () => {
    const { kernel, machine } = await bootedHost({ cpuHotAdd: 'offline-only' }, change);
    machine.hotAddProcessor(2);
    expect(kernel.cpus).toHaveLength(5);
    expect(await refusalOf(kernel.cpuOnline(4))).toBe('EIO seamcall-failed');
  });

  it('refuse: says so at once, and the processor is unknown to everything else too', async () => {
    const { kernel, machine } = await bootedHost({ cpuHotAdd: 'refuse' }, change);
    machine.hotAddProcessor(2);
    expect(kernel.log.entries.at(-1)).toMatchObject({ level: 'err', code: 'cpu-add-refused' });
    expect(kernel.cpus).toHaveLength(4);
  });
});
