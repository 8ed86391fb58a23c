import { describe, expect, it } from 'vitest';
import { createHost } from '../../src/lab/host.ts';
import { type ProcessorDescription, packageShift } from '../../src/machine/description.ts';
import { SPR_256G_2NODE } from '../../src/survey/embedded/spr-256g-2node.ts';

function processors(...ids: readonly (readonly number[])[]): ProcessorDescription[] {
  return ids.flatMap((list, id) => list.map((apicId) => ({ apicId, package: id, node: 0, present: true })));
}

describe('the package in an x2APIC id', () => {
  it('is found whatever the stride of the packages', () => {
    expect(packageShift(processors([0, 1, 0x3f], [0x80, 0xbf]))).toBe(7);
    expect(packageShift(processors([0, 0xff], [0x100], [0x200]))).toBe(8);
    expect(packageShift(processors([0, 0x1ff], [0x400]))).toBe(10);
    expect(packageShift(processors([0, 1], [2, 3], [4]))).toBe(1);
    expect(packageShift(processors([5]))).toBe(7);
    expect(packageShift(processors([0, 2], [1, 3]))).toBeNull();
    expect(packageShift(processors([0], [1]))).toBeNull();
  });

  it('lets eight packages of 256 ids each come up', async () => {
    const ids = Array.from({ length: 8 }, (_, i) => [i * 256, i * 256 + 1]);
    const { kernel } = createHost({ ...SPR_256G_2NODE.machine, processors: processors(...ids) });
    await kernel.boot();
    expect(kernel.state).toBe('initialized');
  });
});
