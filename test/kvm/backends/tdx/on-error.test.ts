/** The knob onError at run time: a TD meets a page that the module refuses. */
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../../src/abi/address.ts';
import { TDH } from '../../../../src/abi/leaves.ts';
import { STATUS } from '../../../../src/abi/status-codes.ts';
import type { ErrorPolicy } from '../../../../src/kernel/policy/kernel-policy.ts';
import { account, tdxHost } from './tdx-test-host.ts';
import { GUEST_MEMORY, UserTd } from './user-td.ts';

/** A final TD whose second page the module refuses once. */
async function hurtTd(onError: ErrorPolicy) {
  const host = await tdxHost({ policy: { onError } });
  const before = account(host);
  const td = await UserTd.build(host, 8);
  await td.finalize();
  await td.setPrivate(GUEST_MEMORY, 8, true);
  await td.preFault(GUEST_MEMORY, 1);
  let isRefused = true;
  host.machine.seam.fault = (lp) => {
    if (!isRefused || lp.regs.d[0] !== TDH.memPageAug) return undefined;
    isRefused = false;
    return STATUS.TDX_PAGE_METADATA_INCORRECT;
  };
  const failed = await td.preFault(GUEST_MEMORY + PAGE_4K, 1).then(
    () => 'done',
    (error) => `${error.errno} ${error.reason.code}`,
  );
  const again = (): Promise<string> =>
    td.preFault(GUEST_MEMORY + PAGE_4K, 1).then(
      () => 'done',
      (error) => `${error.errno} ${error.reason.code}`,
    );
  return { host, td, before, failed, again };
}

describe('onError', () => {
  it('leave: the TD answers EIO, and keeps its memory and its KeyID until it is closed', async () => {
    const { host, td, before, failed, again } = await hurtTd('leave');
    expect([failed, await again()]).toEqual(['EIO vm-bugged', 'EIO vm-bugged']);
    expect(account(host).keyIds).toBe(1);
    await td.exit();
    expect(account(host)).toEqual(before);
  });

  it('kill-td: what the TD had is free for the next, though the TD could have gone on', async () => {
    const { host, td, before, failed } = await hurtTd('kill-td');
    expect(failed).toBe('EIO vm-bugged');
    expect(td.task.process.hasExited).toBe(true);
    await td.exit();
    expect(account(host)).toEqual(before);
  });

  it('refuse: the request fails, and the TD goes on; nothing tells a VMM that does not look', async () => {
    const { host, td, before, failed, again } = await hurtTd('refuse');
    expect([failed, await again()]).toEqual(['EIO seamcall-failed', 'done']);
    await td.exit();
    expect(account(host)).toEqual(before);
  });

  it('shutdown: TDX is gone for everybody until the next boot', async () => {
    const { host, failed } = await hurtTd('shutdown');
    expect([failed, host.kernel.state]).toEqual(['EIO vm-bugged', 'disabled']);
    await expect(host.kernel.getTdx()).rejects.toMatchObject({ errno: 'ENODEV' });
  });
});
