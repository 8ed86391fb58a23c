/** The end of TDs: the order of calls, with the file gone first or the KeyID, and with Dynamic PAMT. */
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../../src/abi/address.ts';
import { hostLeafName } from '../../../../src/abi/leaves.ts';
import { RAX } from '../../../../src/abi/registers.ts';
import { STATUS } from '../../../../src/abi/status-codes.ts';
import { KVM_TDX_TERMINATE_VM } from '../../../../src/kvm/backends/tdx/index.ts';
import { account, type TdxTestHost, tdxHost } from './tdx-test-host.ts';
import { GUEST_MEMORY, UserTd } from './user-td.ts';

/** Leaves called while `work` is done, each run of one leaf once, with its length. */
async function leavesOf(host: TdxTestHost, work: () => Promise<unknown>): Promise<string[]> {
  const runs: { name: string; count: number }[] = [];
  host.machine.seam.fault = (lp) => {
    const name = hostLeafName(lp.regs.d[2 * RAX]! & 0xffff).replace('TDH.', '');
    const last = runs.at(-1);
    if (last?.name === name) last.count++;
    else runs.push({ name, count: 1 });
    return undefined;
  };
  await work();
  host.machine.seam.fault = null;
  return runs.map(({ name, count }) => (count === 1 ? name : `${name} x ${count}`));
}

async function finalTd(host: TdxTestHost): Promise<UserTd> {
  const td = await UserTd.build(host, 4, 2);
  await td.finalize();
  await td.preFault(GUEST_MEMORY, 2);
  return td;
}

/** KeyID, tables, two vCPUs of six pages, six pages of the TDCS, the TDR. */
const LAST_STEPS = ['PHYMEM.PAGE.RECLAIM x 22', 'PHYMEM.PAGE.WBINVD'];
const KEY_STEPS = ['VP.FLUSH x 2', 'MNG.VPFLUSHDONE', 'PHYMEM.CACHE.WB x 2', 'MNG.KEY.FREEID'];

describe('tearing a TD down', () => {
  it('removes its pages one by one while it has its KeyID', async () => {
    const host = await tdxHost();
    const before = account(host);
    const td = await finalTd(host);
    const removal = ['MEM.RANGE.BLOCK', 'MEM.TRACK', 'MEM.PAGE.REMOVE', 'PHYMEM.PAGE.WBINVD'];
    expect(await leavesOf(host, () => td.exit())).toEqual([
      ...removal,
      ...removal,
      ...KEY_STEPS,
      ...LAST_STEPS,
    ]);
    expect(account(host)).toEqual(before);
  });

  it('reclaims them once the KeyID is gone', async () => {
    const host = await tdxHost({ tdx: { terminateVm: true } });
    const before = account(host);
    const td = await finalTd(host);
    expect(await leavesOf(host, () => td.command(td.vm, KVM_TDX_TERMINATE_VM))).toEqual(KEY_STEPS);
    expect(account(host)).toMatchObject({ keyIds: 0, charged: 0 });
    await expect(td.run()).rejects.toMatchObject({ errno: 'EIO' });
    expect(await leavesOf(host, () => td.exit())).toEqual(['PHYMEM.PAGE.RECLAIM x 24', 'PHYMEM.PAGE.WBINVD']);
    expect(account(host)).toEqual(before);
  });

  it('resumes a write-back of caches that is interrupted, and leaks everything where that fails', async () => {
    const host = await tdxHost();
    const before = account(host);
    const td = await finalTd(host);
    let calls = 0;
    const resumed: bigint[] = [];
    host.machine.seam.fault = (lp) => {
      if (lp.regs.d[2 * RAX] !== 40) return undefined;
      resumed.push(lp.regs.q[1]!);
      return calls++ < 2 ? STATUS.TDX_INTERRUPTED_RESUMABLE : undefined;
    };
    await td.exit();
    host.machine.seam.fault = null;
    // Started, and resumed twice; the module did not hear of the start and refuses to resume what it never began.
    expect(resumed.slice(0, 3)).toEqual([0n, 1n, 1n]);
    expect(account(host).keyIds).toBe(1);
    expect(account(host).usedPages - before.usedPages).toBe(
      host.tdx.pages.leaked.reduce((sum, { pages }) => sum + pages, 0),
    );
  });

  it('gives up silently while a vCPU is not flushed', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    host.machine.seam.fault = (lp) =>
      lp.regs.d[2 * RAX] === 18 ? STATUS.TDX_VCPU_NOT_ASSOCIATED : undefined;
    await td.exit();
    host.machine.seam.fault = null;
    expect(account(host).keyIds).toBe(1);
    const kinds = host.tdx.pages.leaked.map(({ kind }) => kind);
    expect(kinds.filter((kind) => kind === 'TDVPR')).toHaveLength(2);
    expect(kinds.at(-1)).toBe('TDR');
  });

  it('says which KeyID is leaked', async () => {
    const host = await tdxHost();
    const td = await finalTd(host);
    const { keyId } = td.backend.td;
    host.machine.seam.fault = (lp) => (lp.regs.d[2 * RAX] === 20 ? STATUS.TDX_SYS_BUSY : undefined);
    await td.exit();
    host.machine.seam.fault = null;
    const lines = host.kernel.log.entries.map(({ text }) => text);
    expect(lines.some((line) => line.includes(`HKID ${keyId} is leaked`))).toBe(true);
  });

  it('gives back every page pair of Dynamic PAMT', async () => {
    const host = await tdxHost({ policy: { dynamicPamt: true } });
    const before = account(host);
    expect(host.tdx.pages.pamt).not.toBe(null);
    const td = await finalTd(host);
    await td.preFault(GUEST_MEMORY + 2 * PAGE_4K, 2);
    expect(host.tdx.pages.pamt!.pairs).toBeGreaterThan(0);
    await td.exit();
    expect(host.tdx.pages.pamt!.pairs).toBe(0);
    expect(account(host)).toEqual(before);
  });

  it('ends whatever user space closes first', async () => {
    for (const order of [
      ['gmem', 'vcpu', 'vm'],
      ['vm', 'gmem', 'vcpu'],
      ['vcpu', 'vm', 'gmem'],
    ] as const) {
      const host = await tdxHost();
      const before = account(host);
      const td = await finalTd(host);
      const close = {
        gmem: () => td.task.close(td.gmem),
        vm: () => td.task.close(td.vm),
        vcpu: async () => {
          for (const { fd, run } of td.vcpus) {
            await td.task.munmap(run, 2 * PAGE_4K);
            await td.task.close(fd);
          }
        },
      };
      for (const what of order) await close[what]();
      expect(account(host)).toMatchObject({ keyIds: 0, charged: 0, leaked: 0 });
      await td.exit();
      expect(account(host)).toEqual(before);
    }
  });
});
