import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MemoryAttributes } from '../../src/kvm/attributes.ts';
import { KvmSession, PAGE, refusal } from './kvm-session.ts';

const PRIVATE = 8n;

describe('KVM_SET_MEMORY_ATTRIBUTES', () => {
  it('refuses in the order of the kernel', async () => {
    const session = await KvmSession.start();
    const vm = await session.createVm(1);
    const set = (gpa: number, bytes: number, attributes: bigint, flags = 0n): Promise<string> =>
      refusal(session.setAttributes(vm, gpa, bytes, attributes, flags));
    expect(await set(1, 0, 1n, 1n)).toBe('EINVAL attributes-flags');
    expect(await set(1, 0, 1n)).toBe('EINVAL attributes-unknown');
    expect(await set(1, 0, PRIVATE)).toBe('EINVAL attributes-range');
    expect(await set(1, PAGE, PRIVATE)).toBe('EINVAL attributes-unaligned');
    expect(await set(0, 1, PRIVATE)).toBe('EINVAL attributes-unaligned');
    expect(await refusal(session.setAttributes(vm, -PAGE, 2 * PAGE, PRIVATE))).toBe(
      'EINVAL attributes-range',
    );
    expect(await set(0, PAGE, PRIVATE)).toBe('done');
    expect(await set(0, PAGE, PRIVATE)).toBe('done');
    expect(session.vm(vm).attributes.isPrivate(0)).toBe(true);
  });

  it('is not for VMs without private memory, but for setting none', async () => {
    const session = await KvmSession.start();
    const vm = await session.createVm(0);
    expect(await refusal(session.setAttributes(vm, 0, PAGE, PRIVATE))).toBe('EINVAL attributes-unknown');
    expect(await refusal(session.setAttributes(vm, 0, PAGE, 0n))).toBe('done');
  });
});

describe('memory attributes', () => {
  it('agree with a value per frame', () => {
    const range = fc.tuple(fc.nat(40), fc.integer({ min: 1, max: 20 }), fc.constantFrom(0n, PRIVATE));
    fc.assert(
      fc.property(fc.array(range, { maxLength: 40 }), range, (ranges, [askStart, askPages, askValue]) => {
        const attributes = new MemoryAttributes();
        const model = new Array<bigint>(64).fill(0n);
        for (const [start, pages, value] of ranges) {
          attributes.set(start, start + pages, value);
          model.fill(value, start, start + pages);
        }
        for (const [gfn, value] of model.entries()) expect(attributes.get(gfn)).toBe(value);
        expect(attributes.isUniform(askStart, askStart + askPages, askValue)).toBe(
          model.slice(askStart, askStart + askPages).every((value) => value === askValue),
        );
        const borders = model.filter((value, i) => value !== 0n && model[i - 1] !== value).length;
        expect(attributes.rangeCount).toBe(borders);
      }),
    );
  });
});
