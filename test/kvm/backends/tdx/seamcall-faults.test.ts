/** Each SEAMCALL of a TD's life fails once: every page is either given back or named as leaked. */
import { describe, expect, it } from 'vitest';
import { GIB, PAGE_4K } from '../../../../src/abi/address.ts';
import { KernelError } from '../../../../src/abi/errno.ts';
import { hostLeafName } from '../../../../src/abi/leaves.ts';
import { RAX } from '../../../../src/abi/registers.ts';
import { STATUS } from '../../../../src/abi/status-codes.ts';
import { KVM_TDX_TERMINATE_VM } from '../../../../src/kvm/backends/tdx/index.ts';
import { account, type TdxTestHost, type TestHostOptions, tdxHost } from './tdx-test-host.ts';
import { GUEST_MEMORY, UserTd } from './user-td.ts';

/** A life with every kind of call: pages added, augmented, removed before and after the TD is final, two vCPUs. */
async function live(host: TdxTestHost, created: (td: UserTd) => void): Promise<void> {
  const td = await UserTd.create(host);
  created(td);
  await td.initVm();
  await td.addVcpu(0);
  await td.addVcpu(1);
  await td.addMemory(8);
  await td.initRegion(GUEST_MEMORY, new Uint8Array(PAGE_4K).fill(1));
  await td.initRegion(GUEST_MEMORY + PAGE_4K, new Uint8Array(PAGE_4K).fill(2), false);
  await td.punch(GUEST_MEMORY + PAGE_4K, 1);
  await td.finalize();
  td.script(0, function* (cpu) {
    yield* cpu.accept(GUEST_MEMORY + 2 * PAGE_4K, 2);
  });
  await td.runToEnd();
  await td.punch(GUEST_MEMORY + 2 * PAGE_4K, 1);
  if (host.tdx.options.hugePages) await liveWithLargePages(td);
  if (host.tdx.options.terminateVm) await td.command(td.vm, KVM_TDX_TERMINATE_VM);
}

/** A large page, of which a part goes and comes back, so that it is split and joined. */
async function liveWithLargePages(td: UserTd): Promise<void> {
  await td.addMemory(1024, 1, LARGE_MEMORY);
  await td.preFault(LARGE_MEMORY, 512);
  await td.setPrivate(LARGE_MEMORY, 1, false);
  await td.setPrivate(LARGE_MEMORY, 1, true);
  await td.preFault(LARGE_MEMORY, 1);
}

const LARGE_MEMORY = 2 * GIB;

/** Lives a life in which SEAMCALL number `failing` gets `status`; returns the leaf that failed. */
async function liveWithFailure(host: TdxTestHost, failing: number, status: bigint): Promise<string | null> {
  const { seam } = host.machine;
  const first = seam.calls;
  let failed: string | null = null;
  seam.fault = (lp, index) => {
    if (index !== first + failing) return undefined;
    failed = hostLeafName(lp.regs.d[2 * RAX]! & 0xffff);
    return status;
  };
  let td: UserTd | null = null;
  try {
    await live(host, (made) => {
      td = made;
    });
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
  }
  await (td as UserTd | null)?.exit();
  seam.fault = null;
  return failed;
}

/** Of a leaf called many times in a row, such as WBINVD for a large page, some calls are enough. */
const SAME_LEAF = 40;
const STEP = 61;

async function check(status: bigint, options: TestHostOptions = {}): Promise<Map<string, number>> {
  const leaked = new Map<string, number>();
  let host = await tdxHost(options);
  for (let i = 0, repeats = 0, last = ''; ; i += repeats > SAME_LEAF ? STEP : 1) {
    const before = account(host);
    const leaf = await liveWithFailure(host, i, status);
    const after = account(host);
    const { leaked: leaks, pamt } = host.tdx.pages;
    // A leaked page keeps the pair that holds its metadata.
    const metadata = pamt === null ? 0 : pamt.leakedPages + 2 * pamt.pairs;
    const pages = leaks.reduce((sum, leak) => sum + leak.pages, metadata);
    expect({ call: i, leaf, leaks: JSON.stringify(host.tdx.pages.leaked), ...after }).toMatchObject({
      call: i,
      leaf,
      usedPages: before.usedPages + pages,
      objects: before.objects,
      charged: after.keyIds,
    });
    host.kernel.allocator.audit();
    if (leaf === null) return leaked;
    repeats = leaf === last ? repeats + 1 : 0;
    last = leaf;
    leaked.set(leaf, Math.max(leaked.get(leaf) ?? 0, pages));
    if (pages > 0 || after.keyIds > 0) host = await tdxHost(options);
  }
}

describe('when a SEAMCALL fails that must not', () => {
  it('leaks what the module keeps, and nothing else', async () => {
    const leaked = await check(STATUS.TDX_SYS_BUSY);
    const nothing = [
      'TDH.MNG.CREATE',
      'TDH.MNG.INIT',
      'TDH.VP.CREATE',
      'TDH.MR.FINALIZE',
      'TDH.MEM.SEPT.ADD',
    ];
    for (const leaf of nothing) expect([leaf, leaked.get(leaf)]).toEqual([leaf, 0]);
    // A page that cannot be removed also keeps the TD's root.
    for (const leaf of ['TDH.MEM.RANGE.BLOCK', 'TDH.MEM.TRACK', 'TDH.MEM.PAGE.REMOVE']) {
      expect([leaf, leaked.get(leaf)]).toEqual([leaf, 2]);
    }
    expect(leaked.get('TDH.MNG.KEY.FREEID')).toBeGreaterThan(10);
    expect(leaked.get('TDH.PHYMEM.PAGE.RECLAIM')).toBe(2);
  });

  it('recovers from lack of entropy', async () => {
    const leaked = await check(STATUS.TDX_RND_NO_ENTROPY);
    // The wrapper tries again, so a single failure has no effect anywhere.
    expect([...leaked.values()].every((pages) => pages === 0)).toBe(true);
  });

  it('tries again once where an operand is busy', async () => {
    const leaked = await check(STATUS.TDX_OPERAND_BUSY);
    for (const leaf of ['TDH.MEM.RANGE.BLOCK', 'TDH.MEM.TRACK', 'TDH.MEM.PAGE.REMOVE', 'TDH.MEM.PAGE.AUG']) {
      expect([leaf, leaked.get(leaf)]).toEqual([leaf, 0]);
    }
  });

  it.each([
    ['with one epoch a zap', { tdx: { trackPer: 'zap' } }],
    ['with Dynamic PAMT', { policy: { dynamicPamt: true } }],
    ['with large pages', { tdx: { hugePages: true, promote: true }, kvm: { hugePages: true } }],
    ['with early release of the KeyID', { tdx: { terminateVm: true } }],
  ] as const)('accounts for every page %s', async (_name, options) => {
    const leaked = await check(STATUS.TDX_SYS_BUSY, options);
    expect([...leaked.values()].some((pages) => pages > 10)).toBe(true);
  });
});
