import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../../src/abi/errno.ts';
import { MADV, MPOL, MPOL_MF } from '../../../src/abi/system-call-flags.ts';
import { ANONYMOUS, bytesOf, mapPages, outcome, SHARED_ANONYMOUS, tinyProcess } from './tiny-process.ts';

const PAGE = 4096;

describe('memory policies', () => {
  const nodesOf = (at: number, pages: number, task: ReturnType<typeof tinyProcess>['task']) =>
    task.pageNodes(Array.from({ length: pages }, (_, i) => at + i * PAGE));

  it.each([
    ['private', ANONYMOUS],
    ['shared', SHARED_ANONYMOUS],
  ])('decide where %s memory is made', async (_, flags) => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 8, flags);
    task.mbind(at, 4 * PAGE, MPOL.INTERLEAVE, [1, 0]);
    task.mbind(at + 4 * PAGE, 2 * PAGE, MPOL.BIND, [1]);
    task.mbind(at + 6 * PAGE, PAGE, MPOL.PREFERRED, [1]);
    await task.store(at, bytesOf(1, 8 * PAGE));
    const nodes = nodesOf(at, 8, task);
    expect([...nodes.slice(0, 4)].sort()).toEqual([0, 0, 1, 1]);
    expect(nodes[0]).not.toBe(nodes[1]);
    expect(nodes.slice(4)).toEqual([1, 1, 1, 0]);
    expect(task.getMempolicy(at + 3 * PAGE)).toEqual({ mode: MPOL.INTERLEAVE, nodes: [0, 1] });
    expect(task.getMempolicy(at + 5 * PAGE)).toEqual({ mode: MPOL.BIND, nodes: [1] });
    expect(task.getMempolicy(at + 7 * PAGE)).toEqual({ mode: MPOL.DEFAULT, nodes: [] });
    task.mbind(at, 8 * PAGE, MPOL.DEFAULT, []);
    expect(task.getMempolicy(at)).toEqual({ mode: MPOL.DEFAULT, nodes: [] });
  });

  it('take effect for pages that are made again, and say so with MPOL_MF_STRICT', async () => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 1);
    await task.store(at, bytesOf(1));
    expect(await outcome(() => task.mbind(at, PAGE, MPOL.BIND, [1], MPOL_MF.STRICT))).toBe('EIO');
    task.mbind(at, PAGE, MPOL.BIND, [1]);
    expect(nodesOf(at, 1, task)).toEqual([0]);
    await task.madvise(at, PAGE, MADV.DONTNEED);
    await task.store(at, bytesOf(1));
    expect(nodesOf(at, 1, task)).toEqual([1]);
  });

  it('keep to their nodes when those are full, or do not', async () => {
    const { kernel, task } = tinyProcess();
    const at = await mapPages(task, 2);
    task.mbind(at, PAGE, MPOL.BIND, [1]);
    task.mbind(at + PAGE, PAGE, MPOL.PREFERRED, [1]);
    const filler = { node: 1, fallback: false, purpose: 'filler' };
    for (let order = 10; order >= 0; order--) while (kernel.allocator.allocPages(order, filler) !== null);
    expect(await outcome(() => task.store(at, bytesOf(1)))).toBe('SIGBUS');
    await task.store(at + PAGE, bytesOf(1));
    expect(nodesOf(at, 2, task)).toEqual([-ERRNO.EFAULT, 0]);
    expect(task.pageNodes([0x10_0000])).toEqual([-ERRNO.EFAULT]);
  });

  it.each<[string, number, readonly number[], number, string]>([
    ['weighted interleaving', MPOL.WEIGHTED_INTERLEAVE, [0, 1], 0, 'done'],
    ['an unknown mode', 999, [0], 0, 'EINVAL'],
    ['a negative mode', -1, [0], 0, 'EINVAL'],
    ['an unknown flag', MPOL.BIND, [0], 8, 'EINVAL'],
    ['BIND without nodes', MPOL.BIND, [], 0, 'EINVAL'],
    ['BIND to nodes that have no memory', MPOL.BIND, [7, -1, Number.NaN], 0, 'EINVAL'],
    ['INTERLEAVE without nodes', MPOL.INTERLEAVE, [], 0, 'EINVAL'],
    ['DEFAULT with nodes', MPOL.DEFAULT, [0], 0, 'EINVAL'],
    ['LOCAL with nodes', MPOL.LOCAL, [0], 0, 'EINVAL'],
    ['PREFERRED without nodes, which is LOCAL', MPOL.PREFERRED, [], 0, 'done'],
    ['several preferred nodes', MPOL.PREFERRED_MANY, [1, 0], 0, 'done'],
  ])('are checked: %s', async (_, mode, nodes, flags, wanted) => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 1);
    expect(await outcome(() => task.mbind(at, PAGE, mode, nodes, flags))).toBe(wanted);
  });

  it('need mapped memory from a page on', async () => {
    const { task } = tinyProcess();
    const at = await mapPages(task, 1);
    expect(await outcome(() => task.mbind(at + 1, PAGE, MPOL.BIND, [0]))).toBe('EINVAL');
    expect(await outcome(() => task.mbind(at - PAGE, 2 * PAGE, MPOL.BIND, [0]))).toBe('EFAULT');
    expect(await outcome(() => task.mbind(at - PAGE, 2 * PAGE, MPOL.DEFAULT, []))).toBe('done');
    expect(await outcome(() => task.mbind(at - PAGE, PAGE, MPOL.DEFAULT, []))).toBe('EFAULT');
    expect(await outcome(() => task.mbind(at, -PAGE, MPOL.BIND, [0]))).toBe('EINVAL');
    for (const length of [0, -1]) {
      expect(await outcome(() => task.mbind(0x10_0000, length, MPOL.BIND, []))).toBe('done');
    }
    expect(await outcome(() => task.mbind(0x10_0000, 0, 999, []))).toBe('EINVAL');
    expect(await outcome(() => task.getMempolicy(0x10_0000))).toBe('EFAULT');
    expect(await outcome(() => task.getMempolicy(-1))).toBe('EFAULT');
  });
});
