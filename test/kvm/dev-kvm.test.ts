import { describe, expect, it } from 'vitest';
import { KVM_CAP } from '../../src/abi/kvm/capabilities.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_CPUID_ENTRY2, KVM_CPUID2 } from '../../src/abi/kvm/structs.ts';
import { KvmSession, PAGE, refusal } from './kvm-session.ts';

const UNKNOWN = 0xae7f;

describe('/dev/kvm', () => {
  it('answers what KVM is', async () => {
    const { task, kvm } = await KvmSession.start();
    expect(await task.ioctl(kvm, KVM.GET_API_VERSION)).toBe(12);
    expect(await task.ioctl(kvm, KVM.GET_VCPU_MMAP_SIZE)).toBe(2 * PAGE);
    expect(await refusal(task.ioctl(kvm, KVM.GET_API_VERSION, 1))).toBe('EINVAL ioctl-argument');
    expect(await refusal(task.ioctl(kvm, KVM.GET_VCPU_MMAP_SIZE, 1))).toBe('EINVAL ioctl-argument');
    expect(await refusal(task.ioctl(kvm, UNKNOWN))).toBe('EINVAL kvm-ioctl');
    expect(await refusal(task.ioctl(kvm, KVM.CREATE_VM, new Uint8Array(8)))).toBe('EINVAL ioctl-argument');
  });

  it.each([
    ['without TDX', false, 0b00_0011, 'EINVAL vm-type'],
    ['with TDX', true, 0b10_0011, 'done'],
  ])('offers the VM types of a host %s', async (_, withTdx, types, td) => {
    const session = await KvmSession.start({}, withTdx);
    const { task, kvm } = session;
    expect(await task.ioctl(kvm, KVM.CHECK_EXTENSION, KVM_CAP.VM_TYPES)).toBe(types);
    expect(await refusal(session.createVm(5))).toBe(td);
    expect(await refusal(session.createVm(2))).toBe('EINVAL vm-type');
    expect(await refusal(session.createVm(99))).toBe('EINVAL vm-type');
    await task.exit();
    expect(session.leaks().pages).toBe(0);
  });

  it('says why a type is missing', async () => {
    const session = await KvmSession.start();
    await expect(session.createVm(5)).rejects.toMatchObject({
      reason: { data: { type: 5, why: { code: 'tdx-unsupported' } } },
    });
  });

  it('reports capabilities of KVM, and of a VM where they differ', async () => {
    const session = await KvmSession.start();
    const { task, kvm } = session;
    const plain = await session.createVm(0);
    const guarded = await session.createVm(1);
    const ask = async (cap: number) =>
      Promise.all([kvm, plain, guarded].map((fd) => task.ioctl(fd, KVM.CHECK_EXTENSION, cap)));
    expect(await ask(KVM_CAP.GUEST_MEMFD)).toEqual([1, 1, 1]);
    expect(await ask(KVM_CAP.GUEST_MEMFD_FLAGS)).toEqual([3, 3, 1]);
    expect(await ask(KVM_CAP.MEMORY_ATTRIBUTES)).toEqual([8, 0, 8]);
    expect(await ask(KVM_CAP.NR_VCPUS)).toEqual([4, 4, 4]);
    expect(await ask(KVM_CAP.MAX_VCPUS)).toEqual([1024, 1024, 1024]);
    expect(await ask(KVM_CAP.NR_MEMSLOTS)).toEqual([32764, 32764, 32764]);
    expect(await ask(KVM_CAP.EXIT_HYPERCALL)).toEqual([4096, 4096, 4096]);
    expect(await ask(KVM_CAP.ARM_VM_IPA_SIZE)).toEqual([0, 0, 0]);
  });

  it('leaves attributes to the files with gmem_in_place_conversion', async () => {
    const session = await KvmSession.start({ inPlaceConversion: true });
    const vm = await session.createVm(1);
    const plain = await session.createVm(0);
    const ask = (fd: number, cap: number) => session.task.ioctl(fd, KVM.CHECK_EXTENSION, cap);
    for (const fd of [session.kvm, vm]) {
      expect(await ask(fd, KVM_CAP.MEMORY_ATTRIBUTES)).toBe(0);
      expect(await ask(fd, KVM_CAP.GUEST_MEMFD_MEMORY_ATTRIBUTES)).toBe(8);
    }
    expect(await ask(plain, KVM_CAP.GUEST_MEMFD_MEMORY_ATTRIBUTES)).toBe(0);
    expect(await refusal(session.setAttributes(vm, 0, PAGE, 8n))).toBe('ENOTTY attributes-in-files');
  });

  it('lists the CPUID that guests can have', async () => {
    const { task, kvm } = await KvmSession.start();
    const buffer = new Uint8Array(KVM_CPUID2.bytes + 256 * KVM_CPUID_ENTRY2.bytes);
    buffer.set(KVM_CPUID2.encode({ nent: 1 }));
    expect(await refusal(task.ioctl(kvm, KVM.GET_SUPPORTED_CPUID, buffer))).toBe('E2BIG cpuid-entries');
    expect(KVM_CPUID2.decode(buffer).nent).toBe(1);
    buffer.set(KVM_CPUID2.encode({ nent: 256 }));
    expect(await task.ioctl(kvm, KVM.GET_SUPPORTED_CPUID, buffer)).toBe(0);
    const needed = KVM_CPUID2.decode(buffer).nent;
    const entries = Array.from({ length: needed }, (_, i) =>
      KVM_CPUID_ENTRY2.decode(buffer, KVM_CPUID2.bytes + i * KVM_CPUID_ENTRY2.bytes),
    );
    const [features] = entries.filter((entry) => entry.function === 1);
    expect(features!.ecx & (1 << 5)).toBe(0);
    expect(features!.ecx >>> 31).toBe(1);
    const short = KVM_CPUID2.encode({ nent: needed });
    expect(await refusal(task.ioctl(kvm, KVM.GET_SUPPORTED_CPUID, short))).toBe('EFAULT buffer-too-short');
  });
});
