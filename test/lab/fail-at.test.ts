import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/abi/input-error.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { STATUS } from '../../src/abi/status-codes.ts';
import { describeFailurePoint, parseFailurePoint } from '../../src/lab/fail-at.ts';
import { createHost } from '../../src/lab/host.ts';
import { EMBEDDED_HOSTS } from '../../src/survey/embedded/hosts.ts';

const { machine } = EMBEDDED_HOSTS.get('spr-256g-2node')!;

describe('failure points', () => {
  it('reads calls, leaves, statuses and allocations', () => {
    expect(parseFailurePoint('seamcall:7')).toEqual({
      kind: 'seamcall',
      leaf: null,
      nth: 7,
      status: STATUS.TDX_SYS_BUSY,
    });
    expect(parseFailurePoint('tdh.sys.key.config#2=TDX_OPERAND_BUSY')).toEqual({
      kind: 'seamcall',
      leaf: TDH.sysKeyConfig,
      nth: 2,
      status: STATUS.TDX_OPERAND_BUSY,
    });
    expect(parseFailurePoint('TDH.SYS.INIT=0xc000050200000000')).toMatchObject({
      status: 0xc000_0502_0000_0000n,
    });
    expect(parseFailurePoint('alloc:3')).toEqual({ kind: 'allocation', purpose: null, nth: 3 });
    expect(describeFailurePoint(parseFailurePoint('alloc:pamt'))).toBe('allocation 1 for pamt');
  });

  it.each([
    '',
    'seamcall:0',
    'TDH.SYS.NOPE',
    'alloc:',
    'TDH.SYS.INIT=NOPE',
    'alloc:1=TDX_SYS_BUSY',
    'seamcall:x',
  ])('refuses %j in one sentence', (text) => {
    expect(() => parseFailurePoint(text)).toThrow(InputError);
  });

  it.each([
    ['TDH.SYS.INIT', 'cpus'],
    ['TDH.SYS.LP.INIT#9', 'cpus'],
    ['TDH.SYS.RD', 'sysinfo'],
    ['TDH.SYS.CONFIG', 'config'],
    ['TDH.SYS.KEY.CONFIG#2', 'key-config'],
    ['TDH.SYS.TDMR.INIT#600', 'tdmr-init'],
    ['alloc:tdmr-list', 'tdmr-list'],
    ['alloc:pamt', 'pamts'],
  ])('%s ends the bring-up in stage %s', async (point, stage) => {
    const { kernel } = createHost(machine, { failAt: parseFailurePoint(point) });
    await kernel.boot();
    expect(kernel.stages.find(({ state }) => state === 'failed')?.name).toBe(stage);
    expect(kernel.state).toBe('error');
    kernel.allocator.audit();
  });

  it('is survived where the wrapper retries for entropy', async () => {
    const { kernel } = createHost(machine, { failAt: parseFailurePoint('TDH.SYS.INIT=TDX_RND_NO_ENTROPY') });
    await kernel.boot();
    expect(kernel.state).toBe('initialized');
  });
});
