import { describe, expect, it } from 'vitest';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_MEM, KVM_PRE_FAULT_MEMORY } from '../../src/abi/kvm/structs.ts';
import { KvmSession, PAGE, refusal } from './kvm-session.ts';

const GPA = 0x1_0000_0000;
const PAGES = 8;

async function withSlot(type: number, isPrivate: boolean) {
  const session = await KvmSession.start();
  const vm = await session.createVm(type);
  const user = await session.anonymous(PAGES);
  const guest_memfd = type === 1 ? await session.createFile(vm, PAGES) : 0;
  await session.setRegion(vm, {
    slot: 1,
    flags: type === 1 ? KVM_MEM.GUEST_MEMFD : 0,
    guest_phys_addr: BigInt(GPA),
    memory_size: BigInt(PAGES * PAGE),
    userspace_addr: BigInt(user),
    guest_memfd,
  });
  if (isPrivate) await session.setAttributes(vm, GPA, PAGES * PAGE, 8n);
  const vcpu = await session.createVcpu(vm);
  /** Outcome and what is left of the range. */
  const preFault = async (offset: number, size: number, flags = 0n): Promise<[string, number]> => {
    const request = KVM_PRE_FAULT_MEMORY.encode({ gpa: BigInt(GPA + offset), size: BigInt(size), flags });
    const outcome = await refusal(session.task.ioctl(vcpu, KVM.PRE_FAULT_MEMORY, request));
    const left = KVM_PRE_FAULT_MEMORY.decode(request);
    expect(left.gpa + left.size).toBe(BigInt(GPA + offset + size));
    return [outcome, Number(left.size)];
  };
  return { session, vm: session.vm(vm), vmFd: vm, preFault };
}

describe('KVM_PRE_FAULT_MEMORY', () => {
  it.each([
    ['a plain VM', 0, false],
    ['shared memory of a protected VM', 1, false],
    ['private memory of a protected VM', 1, true],
  ] as const)('maps %s as far as there are slots', async (_, type, isPrivate) => {
    const { vm, preFault } = await withSlot(type, isPrivate);
    expect(await preFault(0, 4 * PAGE)).toEqual(['done', 0]);
    for (let page = 0; page < PAGES; page++) {
      expect(vm.backend.isMapped(GPA / PAGE + page, isPrivate)).toBe(page < 4);
    }
    // The last page of the slot, and one behind it.
    expect(await preFault((PAGES - 1) * PAGE, 2 * PAGE)).toEqual(['done', PAGE]);
    expect(await preFault(PAGES * PAGE, PAGE)).toEqual(['ENOENT pre-fault-no-slot', PAGE]);
    expect(await preFault(0, PAGES * PAGE)).toEqual(['done', 0]);
  });

  it('refuses flags and ranges that are none', async () => {
    const { preFault } = await withSlot(0, false);
    expect(await preFault(0, PAGE, 1n)).toEqual(['EINVAL pre-fault-flags', PAGE]);
    expect(await preFault(1, PAGE)).toEqual(['EINVAL pre-fault-range', PAGE]);
    expect(await preFault(0, 1)).toEqual(['EINVAL pre-fault-range', 1]);
    expect(await preFault(0, 0)).toEqual(['EINVAL pre-fault-range', 0]);
    expect(await preFault(-GPA - PAGE, 2 * PAGE).catch(() => 'unrepresentable')).toBe('unrepresentable');
  });

  it('ends with EINTR for a signal', async () => {
    const { session, preFault } = await withSlot(0, false);
    session.task.signal();
    expect(await preFault(0, PAGE)).toEqual(['EINTR interrupted', PAGE]);
    expect(await preFault(0, PAGE)).toEqual(['done', 0]);
  });

  it('answers EAGAIN while the slot is being deleted', async () => {
    const { session, vmFd, preFault } = await withSlot(0, false);
    let met: [string, number] | null = null;
    session.host.kernel.schedule = async (where) => {
      if (where === 'slot-invalid') met = await preFault(0, PAGE);
    };
    await session.setRegion(vmFd, { slot: 1, memory_size: 0n });
    expect(met).toEqual(['EAGAIN pre-fault-slot-going', PAGE]);
  });

  it('gives the errno of what backs the memory', async () => {
    const { session, preFault } = await withSlot(1, true);
    session.host.kernel.allocator.fault = () => true;
    const [outcome] = await preFault(0, PAGE);
    expect(outcome).toMatch(/^ENOMEM/);
  });
});
