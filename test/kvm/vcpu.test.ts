import { describe, expect, it } from 'vitest';
import { KVM_CAP } from '../../src/abi/kvm/capabilities.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_CPUID_ENTRY2, KVM_CPUID2, KVM_FPU, KVM_REGS, KVM_SREGS } from '../../src/abi/kvm/structs.ts';
import { MAP } from '../../src/abi/system-call-flags.ts';
import { UserFault } from '../../src/kernel/process/system-calls.ts';
import { KvmSession, PAGE, READ_WRITE, refusal } from './kvm-session.ts';

const UNKNOWN = 0xae7f;

describe('KVM_CREATE_VCPU', () => {
  it('takes ids below the limit, once', async () => {
    const session = await KvmSession.start();
    const vm = await session.createVm();
    expect(await refusal(session.createVcpu(vm, 4096))).toBe('EINVAL vcpu-id');
    expect(await refusal(session.createVcpu(vm, 4095))).toBe('done');
    expect(await refusal(session.createVcpu(vm, 4095))).toBe('EEXIST vcpu-exists');
    // Not one that is cut to 32 bits, either.
    expect(await refusal(session.createVcpu(vm, 2 ** 32))).toBe('EINVAL vcpu-id');
    expect(await refusal(session.createVcpu(vm, -1))).toBe('EINVAL vcpu-id');
  });

  it('stops at the limit on vCPUs', async () => {
    const session = await KvmSession.start({ maxVcpus: 2 });
    const vm = await session.createVm();
    await session.createVcpu(vm, 0);
    await session.createVcpu(vm, 1);
    expect(await refusal(session.createVcpu(vm, 2))).toBe('EINVAL vcpu-limit');
  });

  it('gives the id back where another thread takes the last descriptor', async () => {
    const session = await KvmSession.start();
    const { task } = session;
    const vms = [await session.createVm(), await session.createVm()] as const;
    const fds: number[] = [];
    while ((await refusal(Promise.resolve().then(() => fds.push(task.dup(session.kvm))))) === 'done');
    await task.close(fds.pop()!);
    const outcomes = await Promise.all(vms.map((vm) => refusal(session.createVcpu(vm))));
    expect(outcomes).toEqual(['done', 'EMFILE no-descriptor']);
    await task.close(fds.pop()!);
    expect(await refusal(session.createVcpu(vms[1]))).toBe('done');
    await task.exit();
    expect(session.leaks()).toMatchObject({ pages: 0 });
  });

  it('fails without memory and leaves nothing', async () => {
    const session = await KvmSession.start();
    const vm = await session.createVm();
    const { allocator } = session.host.kernel;
    for (const purpose of ['kvm_run', 'vmcs']) {
      allocator.fault = (asked) => asked === purpose;
      expect(await refusal(session.createVcpu(vm))).toBe('ENOMEM no-memory');
    }
    allocator.fault = null;
    expect(await refusal(session.createVcpu(vm))).toBe('done');
    await session.task.exit();
    expect(session.leaks()).toMatchObject({ pages: 0 });
  });
});

describe('KVM_ENABLE_CAP', () => {
  it('refuses flags, strangers and bad arguments', async () => {
    const session = await KvmSession.start();
    const vm = await session.createVm();
    const enable = (cap: number, value: bigint, flags = 0) =>
      refusal(session.enableCap(vm, cap, value, flags));
    expect(await enable(KVM_CAP.EXIT_HYPERCALL, 1n << 12n, 1)).toBe('EINVAL cap-flags');
    expect(await enable(KVM_CAP.EXIT_HYPERCALL, 1n << 11n)).toBe('EINVAL cap-hypercalls');
    expect(await enable(KVM_CAP.EXIT_HYPERCALL, 1n << 12n)).toBe('done');
    expect(await enable(KVM_CAP.GUEST_MEMFD, 1n)).toBe('EINVAL cap-unknown');
    // User space can only ask for it.
    expect(await enable(KVM_CAP.MAX_VCPUS, 1n)).toBe('EINVAL cap-unknown');
    expect(await enable(KVM_CAP.SPLIT_IRQCHIP, 4097n)).toBe('EINVAL cap-ioapic-pins');
    expect(await enable(KVM_CAP.SPLIT_IRQCHIP, 4096n)).toBe('done');
    expect(await enable(KVM_CAP.SPLIT_IRQCHIP, 24n)).toBe('EEXIST irqchip-exists');
    expect(await refusal(session.task.ioctl(vm, KVM.CREATE_IRQCHIP))).toBe('EEXIST irqchip-exists');
  });

  it('wants interrupt controllers and the TSC frequency before vCPUs', async () => {
    const session = await KvmSession.start();
    const vm = await session.createVm();
    expect(await refusal(session.task.ioctl(vm, KVM.SET_TSC_KHZ, 2_000_000))).toBe('done');
    expect(await session.task.ioctl(vm, KVM.GET_TSC_KHZ)).toBe(2_000_000);
    await session.createVcpu(vm);
    expect(await refusal(session.enableCap(vm, KVM_CAP.SPLIT_IRQCHIP, 24n))).toBe(
      'EEXIST irqchip-after-vcpus',
    );
    expect(await refusal(session.task.ioctl(vm, KVM.CREATE_IRQCHIP))).toBe('EINVAL irqchip-after-vcpus');
    expect(await refusal(session.task.ioctl(vm, KVM.SET_TSC_KHZ, 1))).toBe('EINVAL tsc-khz-after-vcpus');
  });
});

describe('the TSC', () => {
  it('has the frequency of the host, of the VM or of the vCPU', async () => {
    const session = await KvmSession.start();
    const { task } = session;
    const host = await task.ioctl(await session.createVm(), KVM.GET_TSC_KHZ);
    expect(host).toBeGreaterThan(1_000_000);
    const vm = await session.createVm();
    expect(await refusal(task.ioctl(vm, KVM.SET_TSC_KHZ, 0x7fff_ffff))).toBe('EINVAL tsc-khz');
    await task.ioctl(vm, KVM.SET_TSC_KHZ, 1_500_000);
    const vcpu = await session.createVcpu(vm);
    expect(await task.ioctl(vcpu, KVM.GET_TSC_KHZ)).toBe(1_500_000);
    await task.ioctl(vcpu, KVM.SET_TSC_KHZ, 0);
    expect(await task.ioctl(vcpu, KVM.GET_TSC_KHZ)).toBe(host);
    expect(await task.ioctl(vm, KVM.GET_TSC_KHZ)).toBe(1_500_000);
    expect(await refusal(task.ioctl(vcpu, KVM.SET_TSC_KHZ, 0x7fff_ffff))).toBe('EINVAL tsc-khz');
  });
});

describe('a vCPU', () => {
  it('is in another MP state than RUNNABLE only with an APIC in the kernel', async () => {
    const session = await KvmSession.start();
    const { task } = session;
    const state = (value: number) => Uint8Array.of(value, 0, 0, 0);
    const bare = await session.createVcpu(await session.createVm());
    const vm = await session.createVm();
    await session.enableCap(vm, KVM_CAP.SPLIT_IRQCHIP, 24n);
    const withApic = await session.createVcpu(vm);
    expect(await refusal(task.ioctl(bare, KVM.SET_MP_STATE, state(0)))).toBe('done');
    expect(await refusal(task.ioctl(bare, KVM.SET_MP_STATE, state(3)))).toBe('EINVAL mp-state');
    expect(await refusal(task.ioctl(withApic, KVM.SET_MP_STATE, state(3)))).toBe('done');
    expect(await refusal(task.ioctl(withApic, KVM.SET_MP_STATE, state(5)))).toBe('EINVAL mp-state');
    const bytes = state(9);
    await task.ioctl(withApic, KVM.GET_MP_STATE, bytes);
    expect(bytes).toEqual(state(3));
  });

  it('keeps the state that user space sets', async () => {
    const session = await KvmSession.start();
    const { task } = session;
    const vcpu = await session.createVcpu(await session.createVm());
    const buffer = new Uint8Array(KVM_REGS.bytes);
    await task.ioctl(vcpu, KVM.GET_REGS, buffer);
    expect(KVM_REGS.decode(buffer)).toMatchObject({ rip: 0xfff0n, rflags: 2n, rdx: 0x600n, rax: 0n });
    const regs = { rax: 1n, r15: 2n, rip: 3n, rflags: 2n };
    await task.ioctl(vcpu, KVM.SET_REGS, KVM_REGS.encode(regs));
    await task.ioctl(vcpu, KVM.GET_REGS, buffer);
    expect(KVM_REGS.decode(buffer)).toMatchObject(regs);
    for (const [set, get, layout] of [
      [KVM.SET_SREGS, KVM.GET_SREGS, KVM_SREGS],
      [KVM.SET_FPU, KVM.GET_FPU, KVM_FPU],
    ] as const) {
      const state = new Uint8Array(layout.bytes).fill(7);
      await task.ioctl(vcpu, set, state);
      const back = new Uint8Array(layout.bytes);
      await task.ioctl(vcpu, get, back);
      expect(back).toEqual(state);
    }
  });

  it('has the CPUID that user space gives it', async () => {
    const session = await KvmSession.start();
    const { task } = session;
    const vm = await session.createVm();
    await session.sharedSlot(vm, 0, 0, 1);
    const results: (readonly number[])[] = [];
    const runner = await session.runner(vm, function* (cpu) {
      results.push(yield* cpu.cpuid(0x4000_0000));
      results.push(yield* cpu.cpuid(7, 1));
      results.push(yield* cpu.cpuid(99));
    });
    const entries = [
      { function: 0x4000_0000, eax: 1, ebx: 2, ecx: 3, edx: 4 },
      { function: 7, index: 1, flags: 1, eax: 5 },
    ];
    const cpuid = new Uint8Array(KVM_CPUID2.bytes + 2 * KVM_CPUID_ENTRY2.bytes);
    cpuid.set(KVM_CPUID2.encode({ nent: 2 }));
    for (const [i, entry] of entries.entries()) {
      cpuid.set(KVM_CPUID_ENTRY2.encode(entry), KVM_CPUID2.bytes + i * KVM_CPUID_ENTRY2.bytes);
    }
    await task.ioctl(runner.fd, KVM.SET_CPUID2, cpuid);
    const tooMany = KVM_CPUID2.encode({ nent: 257 });
    expect(await refusal(task.ioctl(runner.fd, KVM.SET_CPUID2, tooMany))).toBe('E2BIG cpuid-entries');
    expect(await runner.run()).toBe('HLT');
    expect(await refusal(task.ioctl(runner.fd, KVM.SET_CPUID2, cpuid))).toBe('done');
    const none = KVM_CPUID2.encode();
    expect(await refusal(task.ioctl(runner.fd, KVM.SET_CPUID2, none))).toBe('EINVAL cpuid-after-run');
    expect(results).toEqual([
      [1, 2, 3, 4],
      [5, 0, 0, 0],
      [0, 0, 0, 0],
    ]);
  });

  it('shares its run page by mmap, and no more', async () => {
    const session = await KvmSession.start();
    const { task } = session;
    const fd = await session.createVcpu(await session.createVm());
    const flags = MAP.SHARED;
    const page = await task.mmap({ lengthBytes: 4 * PAGE, prot: READ_WRITE, flags, fd });
    await task.store(page + PAGE, Uint8Array.of(1));
    await expect(task.load(page + 2 * PAGE, 1)).rejects.toThrow(UserFault);
    await task.exit();
    expect(session.leaks().pages).toBe(0);
  });

  it('knows its ioctls, and takes no argument to run', async () => {
    const session = await KvmSession.start();
    const vm = await session.createVm();
    const vcpu = await session.createVcpu(vm);
    expect(await refusal(session.task.ioctl(vm, UNKNOWN))).toBe('ENOTTY vm-ioctl');
    expect(await refusal(session.task.ioctl(vcpu, UNKNOWN))).toBe('EINVAL vcpu-ioctl');
    expect(await refusal(session.task.ioctl(vcpu, KVM.RUN, 1))).toBe('EINVAL ioctl-argument');
    expect(await refusal(session.task.ioctl(vm, KVM.MEMORY_ENCRYPT_OP, new Uint8Array(24)))).toBe(
      'ENOTTY no-encryption',
    );
    expect(await refusal(session.task.ioctl(vcpu, KVM.MEMORY_ENCRYPT_OP, new Uint8Array(24)))).toBe(
      'EINVAL vcpu-ioctl',
    );
  });

  it('is of no use to another process, nor when its VM is broken', async () => {
    const session = await KvmSession.start();
    const vm = await session.createVm();
    const vcpu = await session.createVcpu(vm);
    const child = await session.task.fork();
    for (const fd of [vm, vcpu]) {
      expect(await refusal(child.ioctl(fd, KVM.GET_TSC_KHZ))).toBe('EIO vm-other-process');
    }
    await child.exit();
    session.vm(vm).bug('a test says so');
    for (const fd of [vm, vcpu]) {
      expect(await refusal(session.task.ioctl(fd, KVM.GET_TSC_KHZ))).toBe('EIO vm-bugged');
    }
    await session.task.exit();
    expect(session.leaks().pages).toBe(0);
  });
});
