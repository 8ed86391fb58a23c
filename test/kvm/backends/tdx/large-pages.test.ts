/** Private pages of 2 MiB: mapped whole, split where a part goes or the guest wants small ones, joined again. */
import { describe, expect, it } from 'vitest';
import { PAGE_2M, PAGE_4K } from '../../../../src/abi/address.ts';
import { TDG, TDH } from '../../../../src/abi/leaves.ts';
import { RAX } from '../../../../src/abi/registers.ts';
import { STATUS } from '../../../../src/abi/status-codes.ts';
import { KVM_TDX_TERMINATE_VM } from '../../../../src/kvm/backends/tdx/index.ts';
import { rangeOf } from '../../../../src/kvm/backends/tdx/private-mirror.ts';
import { account, type TestHostOptions, tdxHost } from './tdx-test-host.ts';
import { GUEST_MEMORY, UserTd } from './user-td.ts';

const PAGES = PAGE_2M / PAGE_4K;
const GFN = GUEST_MEMORY / PAGE_4K;
const LARGE: TestHostOptions = { tdx: { hugePages: true, promote: true }, kvm: { hugePages: true } };

describe.each([
  ['static PAMT', LARGE],
  ['Dynamic PAMT', { ...LARGE, policy: { dynamicPamt: true } }],
] as const)('large pages with %s', (_name, options) => {
  it('are mapped whole for a guest that accepts them whole', async () => {
    const host = await tdxHost(options);
    const before = account(host);
    const td = await UserTd.build(host, 2 * PAGES);
    await td.finalize();
    const statuses: bigint[] = [];
    td.script(0, function* (cpu) {
      const out = yield* cpu.tdcall(TDG.memPageAccept, { rcx: BigInt(GUEST_MEMORY) | 1n });
      statuses.push(out[RAX]!);
      yield* cpu.write(GUEST_MEMORY + PAGE_2M - 8, new Uint8Array(8).fill(3));
    });
    await td.runToEnd();
    expect(statuses).toEqual([STATUS.TDX_SUCCESS]);
    expect(td.backend.isLarge(GFN, true)).toBe(true);
    await td.exit();
    expect(account(host)).toEqual(before);
    expect(host.tdx.pages.pamt?.pairs ?? 0).toBe(0);
  });

  it('are split where a part becomes shared, with the contents of the rest, and joined when it is back', async () => {
    const host = await tdxHost(options);
    const before = account(host);
    const td = await UserTd.build(host, 2 * PAGES);
    await td.finalize();
    let seen: Uint8Array | undefined;
    const at = GUEST_MEMORY + 5 * PAGE_4K;
    td.script(0, function* (cpu) {
      yield* cpu.tdcall(TDG.memPageAccept, { rcx: BigInt(GUEST_MEMORY) | 1n });
      yield* cpu.write(at, new Uint8Array(8).fill(3));
      yield* cpu.vmcall(0x10001n, BigInt(GUEST_MEMORY) + (1n << 47n), BigInt(PAGE_4K));
      seen = (yield* cpu.read(at, 8)).slice();
    });
    await td.runToEnd();
    expect(seen).toEqual(new Uint8Array(8).fill(3));
    expect(td.backend.isLarge(GFN, true)).toBe(false);
    expect(td.backend.isMapped(GFN, true)).toBe(false);
    expect(td.backend.isMapped(GFN + 1, true)).toBe(true);
    await td.exit();
    expect(account(host)).toEqual(before);
    expect(host.tdx.pages.pamt?.pairs ?? 0).toBe(0);
  });

  it('are joined from pages that lie together, in one state', async () => {
    const host = await tdxHost(options);
    const before = account(host);
    const td = await UserTd.build(host, 2 * PAGES);
    await td.finalize();
    await td.preFault(GUEST_MEMORY, PAGES);
    expect(td.backend.isLarge(GFN, true)).toBe(true);
    // A part becomes shared and private again without losing its page of the file.
    await td.setPrivate(GUEST_MEMORY, 1, false);
    expect(td.backend.isLarge(GFN, true)).toBe(false);
    await td.setPrivate(GUEST_MEMORY, 1, true);
    await td.preFault(GUEST_MEMORY, 1);
    expect(td.backend.isLarge(GFN, true)).toBe(true);
    await td.exit();
    expect(account(host)).toEqual(before);
    expect(host.tdx.pages.pamt?.pairs ?? 0).toBe(0);
  });

  it('are split for a guest that accepts small ones, and stay so', async () => {
    const host = await tdxHost(options);
    const td = await UserTd.build(host, 2 * PAGES);
    await td.finalize();
    await td.preFault(GUEST_MEMORY, PAGES);
    const statuses: bigint[] = [];
    td.script(0, function* (cpu) {
      statuses.push(yield* cpu.accept(GUEST_MEMORY + 7 * PAGE_4K));
      statuses.push(yield* cpu.accept(GUEST_MEMORY + PAGE_2M));
    });
    await td.runToEnd();
    expect(statuses).toEqual([0n, 0n]);
    const { mirror } = td.backend.ept;
    expect(mirror.table(rangeOf(GFN))?.mapped).toBe(PAGES);
    expect(mirror.table(rangeOf(GFN) + 1)?.mapped).toBe(1);
    expect(td.backend.maxLevel(GFN, true)).toBe(0);
    await td.exit();
    expect(account(host).leaked).toBe(0);
  });
});

describe('a large page of which a part goes', () => {
  async function mapped(tdx: TestHostOptions['tdx'] = {}) {
    const host = await tdxHost({ tdx: { hugePages: true, ...tdx }, kvm: { hugePages: true } });
    const before = account(host);
    const td = await UserTd.build(host, PAGES);
    await td.finalize();
    await td.preFault(GUEST_MEMORY, PAGES);
    return { host, before, td };
  }

  it('stays whole where there is no memory for its table, and the guest goes on', async () => {
    const { host, before, td } = await mapped();
    const { allocator } = host.kernel;
    allocator.fault = (purpose) => purpose === 'kvm: secure EPT';
    await expect(td.punch(GUEST_MEMORY, 1)).rejects.toMatchObject({ errno: 'ENOMEM' });
    await expect(td.setPrivate(GUEST_MEMORY, 1, false)).rejects.toMatchObject({ errno: 'ENOMEM' });
    allocator.fault = null;
    expect(td.backend.isLarge(GFN, true)).toBe(true);
    await td.preFault(GUEST_MEMORY, 1);
    await td.punch(GUEST_MEMORY, 1);
    expect(td.backend.isLarge(GFN, true)).toBe(false);
    await td.exit();
    expect(account(host)).toEqual(before);
  });

  it('is leaked where the module does not split it', async () => {
    const { host, td } = await mapped();
    const first = td.backend.ept.mirror.large(rangeOf(GFN))!;
    host.machine.seam.fault = (lp) =>
      lp.regs.d[2 * RAX] === TDH.memPageDemote ? STATUS.TDX_OPERAND_INVALID : undefined;
    await td.punch(GUEST_MEMORY + 8 * PAGE_4K, 4);
    host.machine.seam.fault = null;
    expect(host.tdx.pages.leaked).toMatchObject([{ address: first * PAGE_4K, pages: PAGES }]);
    // The hole has taken the file's reference of these, and nobody else gets them.
    for (let pfn = first + 8; pfn < first + 12; pfn++) expect(host.kernel.pageRefs.count(pfn)).toBe(1);
    await td.exit();
    host.kernel.allocator.audit();
  });

  it('is reclaimed whole from a TD without KeyID', async () => {
    const { host, before, td } = await mapped({ terminateVm: true });
    await td.command(td.vm, KVM_TDX_TERMINATE_VM);
    await td.punch(GUEST_MEMORY, 1);
    expect(td.backend.ept.mirror.mapped).toBe(0);
    await td.exit();
    expect(account(host)).toEqual(before);
  });
});

describe('without large pages', () => {
  it('a file of large pages is mapped in small ones, as Linux 7.2 does', async () => {
    const host = await tdxHost({ kvm: { hugePages: true } });
    const td = await UserTd.build(host, PAGES);
    await td.finalize();
    await td.preFault(GUEST_MEMORY, PAGES);
    expect(td.backend.isLarge(GFN, true)).toBe(false);
    expect(td.backend.ept.mirror.mapped).toBe(PAGES);
    await td.exit();
  });
});
