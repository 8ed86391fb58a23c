import { expect, it } from 'vitest';
import { STATUS } from '../../src/abi/status-codes.ts';
import { expectCleanFailure, realHost } from './bring-up.ts';

it('a failure at any of the calls of TDH.SYS.TDMR.INIT leaves a clean state', {
  timeout: 600_000,
}, async () => {
  const healthy = realHost();
  await healthy.kernel.boot();
  const { calls } = healthy.machine.seam;
  const first = calls - 11 * 256;
  for (let index = first; index < calls; index++) {
    const host = realHost();
    host.machine.seam.fault = (_, call) => (call === index ? STATUS.TDX_SYS_BUSY : undefined);
    await host.kernel.boot();
    await expectCleanFailure(host, 'tdmr-init');
  }
  expect(first).toBeGreaterThan(0);
});
