import { describe, expect, it } from 'vitest';
import { KVM_CAP } from '../../src/abi/kvm/capabilities.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_MSR_FILTER, KVM_MSR_FILTER_FLAG } from '../../src/abi/kvm/structs.ts';
import type { GuestException } from '../../src/lab/guest/flow.ts';
import { KvmSession, refusal } from './kvm-session.ts';

const { DEFAULT_DENY, READ, WRITE } = KVM_MSR_FILTER_FLAG;
const STAR = 0xc000_0081;
const LSTAR = 0xc000_0082;
const GS_BASE = 0xc000_0102;

type Filter = Parameters<typeof KVM_MSR_FILTER.encode>[0];

async function withVm() {
  const session = await KvmSession.start();
  const vm = await session.createVm();
  await session.sharedSlot(vm, 0, 0, 1);
  const set = (filter: Filter): Promise<number> =>
    session.task.ioctl(vm, KVM.X86_SET_MSR_FILTER, KVM_MSR_FILTER.encode(filter));
  /** A range of up to eight registers: a bit each for those that are allowed. */
  const range = async (flags: number, base: number, nmsrs: number, allowed: number) => {
    const bitmap = await session.anonymous(1);
    await session.task.store(bitmap, Uint8Array.of(allowed));
    return { flags, base, nmsrs, pad: 0, bitmap: BigInt(bitmap) };
  };
  return { session, vm, set, range };
}

describe('KVM_X86_SET_MSR_FILTER', () => {
  it('is offered, and refuses what is no filter', async () => {
    const { session, vm, set, range } = await withVm();
    expect(await session.task.ioctl(vm, KVM.CHECK_EXTENSION, KVM_CAP.X86_MSR_FILTER)).toBe(1);
    const good = await range(READ, STAR, 2, 1);
    expect(await refusal(set({ flags: 2 }))).toBe('EINVAL msr-filter-flags');
    expect(await refusal(set({ flags: DEFAULT_DENY }))).toBe('EINVAL msr-filter-empty');
    expect(await refusal(set({ ranges: [{ ...good, flags: 4 }] }))).toBe('EINVAL msr-filter-range-flags');
    expect(await refusal(set({ ranges: [{ ...good, nmsrs: 0x3001 }] }))).toBe('EINVAL msr-filter-range');
    expect(await refusal(set({ ranges: [{ ...good, bitmap: 0n }] }))).toMatch(/^EFAULT/);
    expect(await refusal(set({ ranges: [good] }))).toBe('done');
    expect(await refusal(set({}))).toBe('done');
    await session.task.exit();
  });

  it('keeps registers from the guest: #GP, by the first rule that concerns the access', async () => {
    const { session, vm, set, range } = await withVm();
    await set({
      flags: DEFAULT_DENY,
      ranges: [
        await range(READ, STAR, 2, 0b01),
        await range(READ | WRITE, STAR, 2, 0b10),
        await range(WRITE, GS_BASE, 1, 1),
      ],
    });
    const outcomes: string[] = [];
    const runner = await session.runner(vm, function* (cpu) {
      for (const index of [STAR, LSTAR, GS_BASE, 0x1b]) {
        for (const access of [cpu.rdmsr(index), cpu.wrmsr(index, 0n)]) {
          try {
            yield* access;
            outcomes.push('done');
          } catch (error) {
            outcomes.push(`#${(error as GuestException).vector}`);
          }
        }
      }
    });
    expect(await runner.run()).toBe('HLT');
    expect(outcomes).toEqual(['done', '#13', '#13', 'done', '#13', 'done', '#13', '#13']);
    await session.task.exit();
  });
});
