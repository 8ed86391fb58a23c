import { beforeAll, describe, expect, it } from 'vitest';
import { PAGE_2M, PAGE_4K } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { RCX, RDX, setRegNumber } from '../../../src/abi/registers.ts';
import { seamcall } from '../../../src/kernel/seamcall.ts';
import { createHost, type Host } from '../../../src/lab/host.ts';
import { inspectHost } from '../../../src/lab/inspect/inspect-host.ts';
import type { SeptRun } from '../../../src/lab/inspect/sept-tree.ts';
import { saveHost } from '../../../src/lab/snapshot/save-host.ts';
import { LabTd } from '../../../src/lab/td/lab-td.ts';
import { trustDomainAt } from '../../../src/module/td/trust-domain.ts';
import type { TdxModule } from '../../../src/module/tdx-module.ts';
import { TINY } from '../../kernel/tiny-machine.ts';

const CONTROL_PAGES = 6;

let host: Host;
let module: TdxModule;

function call(leaf: number, rcx: number, rdx = 0, cpu = 0): bigint {
  const { lp } = host.kernel.cpus[cpu]!;
  lp.regs.q.fill(0n);
  setRegNumber(lp.regs, RCX, rcx);
  setRegNumber(lp.regs, RDX, rdx);
  return seamcall(host.kernel.cpus[cpu]!, leaf);
}

/** Leaves of a tree, without their tables. */
function leaves(runs: readonly SeptRun[]): string[] {
  return runs.flatMap(({ table, start, end, count, size, state, permissions, lock }) =>
    table === undefined
      ? [`${start.toString(16)}-${end.toString(16)} ${count} x ${size} ${state} ${permissions} ${lock}`]
      : leaves(table.entries),
  );
}

describe('inspectHost', () => {
  beforeAll(async () => {
    host = createHost(TINY);
    await host.kernel.boot();
    module = host.machine.seam.module as TdxModule;
  });

  it('shows a host without TDs', () => {
    const { machine, tds, keyIds, pages, tdmrs } = inspectHost(host);
    expect(machine).toMatchObject({
      name: 'tiny',
      packages: 2,
      lps: 4,
      lpsOnline: 4,
      module: { version: '1.5.25', state: 'SYS_READY' },
      tdx: 'initialized',
      tdxFailure: null,
      pagesWithContents: host.machine.memory.framesInUse,
    });
    expect(tds).toEqual([]);
    expect(pages).toEqual([]);
    expect(keyIds).toEqual([
      { first: 9, last: 9, state: 'RESERVED', tdr: null, pendingPackages: [] },
      { first: 10, last: 16, state: 'FREE', tdr: null, pendingPackages: [] },
    ]);
    expect(tdmrs.map(({ start, end }) => ({ start, end }))).toEqual(
      host.kernel.tdmrs.map(({ start, end }) => ({ start, end })),
    );
    expect(
      tdmrs.every(({ end, initialisedEnd, blocksTouched }) => initialisedEnd === end && blocksTouched === 0),
    ).toBe(true);
  });

  it('shows a TD through its life', () => {
    const td = LabTd.build(host.kernel, { vcpus: 2, pages: [{ gpa: 0, contents: Uint8Array.of(1) }] });
    for (let gpa = PAGE_4K; gpa < PAGE_2M; gpa += PAGE_4K) td.augment(gpa);
    call(TDH.memRangeBlock, 5 * PAGE_4K, td.tdr);
    const { tds, keyIds, pages } = inspectHost(host, { sept: true });
    const [seen] = tds;
    expect(seen).toMatchObject({
      tdr: td.tdr,
      keyId: td.keyId,
      lifecycle: 'KEYS_CONFIGURED',
      isFatal: false,
      opState: 'RUNNABLE',
      configuration: { attributeNames: ['SEPT_VE_DISABLE'], xfam: 3n, maxVcpus: 2, l2Vms: 0 },
    });
    expect(seen!.configuration!.mrtd).toMatch(/^[0-9a-f]{96}$/);
    expect(seen!.vcpus.map(({ tdvpr, index, state, lp }) => ({ tdvpr, index, state, lp }))).toEqual(
      td.vcpus.map(({ tdvpr, index }) => ({
        tdvpr,
        index,
        state: 'READY',
        lp: td.cpuOf(td.vcpus[index]!).index,
      })),
    );
    expect(leaves(seen!.sept!)).toEqual([
      '0-1000 1 x 4K MAPPED RWX null',
      '1000-5000 4 x 4K PENDING --- null',
      '5000-6000 1 x 4K PENDING_BLOCKED --- null',
      '6000-200000 506 x 4K PENDING --- null',
    ]);
    expect(keyIds[1]).toEqual({
      first: td.keyId,
      last: td.keyId,
      state: 'ASSIGNED',
      tdr: td.tdr,
      pendingPackages: [],
    });
    const count = (type: string): number => pages.find((page) => page.type === type)!.pages4k;
    expect(['TDR', 'REG', 'TDVPR', 'EPT', 'TDCX'].map(count)).toEqual([
      1,
      512,
      2,
      3,
      CONTROL_PAGES + 2 * (CONTROL_PAGES - 1),
    ]);
    expect(pages.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(seen!.bytes);
    expect(seen!.bytes).toBe(td.pageCount * PAGE_4K);

    for (const { tdvpr } of td.vcpus)
      call(TDH.vpFlush, tdvpr, 0, td.cpuOf(td.vcpus.find((v) => v.tdvpr === tdvpr)!).index);
    call(TDH.mngVpflushdone, td.tdr);
    call(TDH.phymemCacheWb, 0, 0, 0);
    const blocked = inspectHost(host);
    expect(blocked.tds[0]).toMatchObject({ lifecycle: 'BLOCKED', opState: 'RUNNABLE' });
    expect(blocked.keyIds[1]).toMatchObject({ state: 'FLUSHED', tdr: td.tdr, pendingPackages: [1] });
    call(TDH.phymemCacheWb, 0, 0, 2);
    call(TDH.mngKeyFreeid, td.tdr);
    const ended = inspectHost(host, { sept: true });
    expect(ended.tds[0]).toMatchObject({ lifecycle: 'TEARDOWN', opState: null, configuration: null });
    expect(ended.tds[0]!.vcpus[0]).toMatchObject({ index: null, state: null });
    expect(ended.tds[0]!.sept).toBeUndefined();
    expect(ended.keyIds).toHaveLength(2);
  });

  it('changes nothing by looking', () => {
    const td = LabTd.build(host.kernel);
    const before = saveHost(host);
    inspectHost(host, { sept: true });
    inspectHost(host, { tdr: td.tdr });
    expect(Buffer.compare(saveHost(host), before)).toBe(0);
  });

  it('shows an entry that is locked, and one whose lock the host waits for', () => {
    const td = LabTd.build(host.kernel, { pages: [{ gpa: 0, contents: Uint8Array.of(1) }] });
    const real = trustDomainAt(module, td.tdr);
    const { at } = real.sept().walk(0, 0);
    real.sept().tryLock(at);
    expect(leaves(inspectHost(host, { tdr: td.tdr, sept: true }).tds[0]!.sept!)).toEqual([
      '0-1000 1 x 4K MAPPED RWX locked',
    ]);
    real.sept().tryLock(at);
    real.sept().unlock(at);
    expect(leaves(inspectHost(host, { tdr: td.tdr, sept: true }).tds[0]!.sept!)).toEqual([
      '0-1000 1 x 4K MAPPED RWX claimed',
    ]);
  });

  it('shows a vCPU that is entered', () => {
    const td = LabTd.build(host.kernel);
    call(TDH.vpEnter, td.vcpus[0]!.tdvpr);
    expect(inspectHost(host, { tdr: td.tdr }).tds[0]!.vcpus[0]).toMatchObject({
      lp: 0,
      isEntered: true,
      state: 'ACTIVE',
    });
    module.running[0]!.leave();
  });

  it('says what became of a TD whose structures somebody wrote over', () => {
    const td = LabTd.build(host.kernel);
    host.machine.memory.write64(td.tdr + 512, 1n, 0);
    const [seen] = inspectHost(host, { tdr: td.tdr }).tds;
    expect(seen!.damage).toMatch(/poisoned/);
    expect(seen!.pages).not.toEqual([]);
  });

  it('knows no TD that is not there', () => {
    expect(() => inspectHost(host, { tdr: 0x1000 })).toThrow(/no TD has its TDR at 0x1000; TDs there are 0x/);
  });

  it('shows page pairs of Dynamic PAMT as the module’s pages', async () => {
    const dynamic = createHost({ ...TINY, physicalAddressBits: 46 }, { policy: { dynamicPamt: true } });
    await dynamic.kernel.boot();
    expect(dynamic.kernel.enabled?.dynamicPamt).toBe(true);
    const [a, b, donor] = [0, 1, 2].map(
      () => dynamic.kernel.allocator.allocPages(9, { purpose: 'test' })! * PAGE_4K,
    );
    const { lp } = dynamic.kernel.cpus[0]!;
    lp.regs.q.fill(0n);
    for (const [register, value] of [
      [1, donor! + 1],
      [2, a!],
      [8, b!],
    ] as const)
      setRegNumber(lp.regs, register, value);
    expect(seamcall(dynamic.kernel.cpus[0]!, TDH.phymemPamtAdd)).toBe(0n);
    const { pages, dynamicPamt } = inspectHost(dynamic);
    expect(dynamicPamt).toBe(true);
    expect(pages).toEqual([
      { owner: null, type: 'PAMT', pages4k: 2, pages2m: 0, pages1g: 0, bytes: 2 * PAGE_4K },
    ]);
  });

  it('shows hosts on which TDX does not come up', async () => {
    const bare = createHost({ ...TINY, module: null });
    await bare.kernel.boot();
    expect(inspectHost(bare)).toMatchObject({
      machine: { module: null, tdx: 'error', tdxFailure: expect.stringMatching(/^cpus: /) },
      tds: [],
      keyIds: [],
      tdmrs: [],
    });
    expect(() => inspectHost(bare, { tdr: 0x1000 })).toThrow(/there is no TD$/);
  });
});
