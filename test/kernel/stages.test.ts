import { describe, expect, it } from 'vitest';
import { KernelError } from '../../src/abi/errno.ts';
import { STAGES, StageList } from '../../src/kernel/stages.ts';

const states = (list: StageList): readonly string[] => list.list.map(({ state }) => state);

describe('stages', () => {
  it('record what was done and pass its result on', async () => {
    const list = new StageList();
    expect(await list.run('detect', () => 5)).toBe(5);
    expect(await list.run('platform', async () => 'later')).toBe('later');
    expect(states(list)).toEqual(['done', 'done', ...STAGES.slice(2).map(() => 'pending')]);
    expect(list.failed).toBeUndefined();
  });

  it('end with a refusal, which then names the stage', async () => {
    const list = new StageList();
    await list.run('detect', () => {});
    const refusal = new KernelError('ENOMEM', 'no-memory', 'there is none', { bytes: 4096 });
    const run = list.run('platform', () => {
      throw refusal;
    });
    await expect(run).rejects.toMatchObject({
      errno: 'ENOMEM',
      reason: { code: 'no-memory', data: { bytes: 4096, stage: 'platform' } },
    });
    expect(states(list)).toEqual(['done', 'failed', ...STAGES.slice(2).map(() => 'skipped')]);
    expect(list.failed).toMatchObject({ name: 'platform', errno: 'ENOMEM', reason: { code: 'no-memory' } });
  });

  it('end with a crash, which goes on as it was', async () => {
    const list = new StageList();
    const crash = new Error('machine check');
    await expect(
      list.run('detect', async () => {
        throw crash;
      }),
    ).rejects.toBe(crash);
    expect(states(list)).toEqual(['failed', ...STAGES.slice(1).map(() => 'skipped')]);
    expect(list.failed).toMatchObject({ name: 'detect', reason: { code: 'crash' } });
    expect(list.failed!.errno).toBeUndefined();
  });
});
