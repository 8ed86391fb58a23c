/** Every refusal of KVM_MEMORY_ENCRYPT_OP on TDs, with its reason, in the kernel's order of checks. */
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../../src/abi/address.ts';
import { KernelError } from '../../../../src/abi/errno.ts';
import { KVM_CAP } from '../../../../src/abi/kvm/capabilities.ts';
import { KVM } from '../../../../src/abi/kvm/ioctl.ts';
import {
  KVM_CPUID_ENTRY2,
  KVM_CPUID2,
  KVM_USERSPACE_MEMORY_REGION2,
} from '../../../../src/abi/kvm/structs.ts';
import {
  KVM_TDX,
  KVM_TDX_CAPABILITIES,
  KVM_TDX_CMD,
  KVM_TDX_INIT_MEM_REGION,
} from '../../../../src/abi/kvm/tdx.ts';
import { KVM_VM_TYPE } from '../../../../src/abi/kvm/vm-types.ts';
import { STATUS } from '../../../../src/abi/status-codes.ts';
import { KVM_TDX_TERMINATE_VM } from '../../../../src/kvm/backends/tdx/index.ts';
import { initVmBytes } from './init-vm-bytes.ts';
import { account, type TdxTestHost, tdxHost } from './tdx-test-host.ts';
import { GUEST_MEMORY, UserTd } from './user-td.ts';

/** Errno and code of a refusal. */
async function refusal(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return 'done';
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    return `${error.errno} ${error.reason.code}`;
  }
}

let host: TdxTestHost;
let td: UserTd;
beforeAll(async () => {
  host = await tdxHost();
});
beforeEach(async () => {
  td = await UserTd.create(host);
  return async () => {
    await td.exit();
    expect(account(host)).toMatchObject({ keyIds: 0, charged: 0, objects: {}, leaked: 0 });
  };
});

const command = (fd: number, values: Parameters<typeof KVM_TDX_CMD.encode>[0]): Promise<number> =>
  td.task.ioctl(fd, KVM.MEMORY_ENCRYPT_OP, KVM_TDX_CMD.encode(values));

describe('a TDX command', () => {
  it('has a structure, and leaves hw_error to the kernel', async () => {
    expect(await refusal(td.task.ioctl(td.vm, KVM.MEMORY_ENCRYPT_OP, 0x1000))).toMatch(/^EFAULT/);
    expect(await refusal(td.task.ioctl(td.vm, KVM.MEMORY_ENCRYPT_OP, new Uint8Array(8)))).toMatch(/^EFAULT/);
    expect(await refusal(command(td.vm, { id: 99, hw_error: 1n }))).toBe('EINVAL hw-error-set');
    expect(await refusal(command(td.vm, { id: 99 }))).toBe('EINVAL tdx-command');
    expect(await refusal(command(td.vm, { id: KVM_TDX_TERMINATE_VM }))).toBe('EINVAL tdx-command');
  });

  it('is for TDs', async () => {
    const plain = await td.task.ioctl(td.kvm, KVM.CREATE_VM, KVM_VM_TYPE.DEFAULT);
    expect(await refusal(command(plain, { id: 0 }))).toMatch(/^ENOTTY/);
    const vcpu = await td.task.ioctl(plain, KVM.CREATE_VCPU, 0);
    expect(await refusal(command(vcpu, { id: 0 }))).toMatch(/^EINVAL/);
  });
});

describe('KVM_TDX_CAPABILITIES', () => {
  it('tells attributes, features and the CPUID bits that can be configured', async () => {
    const caps = KVM_TDX_CAPABILITIES.decode(await td.capabilities());
    expect(caps.supported_attrs).toBe(1n << 28n);
    expect(caps.supported_xfam & 3n).toBe(3n);
    expect(caps.user_tdvmcallinfo_1_r11).toBe(2n);
    expect(caps.cpuid.nent).toBe(host.tdx.sysinfo.tdConf.numCpuidConfig);
  });

  it('offers the width of guest addresses, and neither TSX nor WAITPKG', async () => {
    const bytes = await td.capabilities();
    const { nent } = KVM_TDX_CAPABILITIES.decode(bytes).cpuid;
    const entries = Array.from({ length: nent }, (_, i) =>
      KVM_CPUID_ENTRY2.decode(bytes, KVM_TDX_CAPABILITIES.bytes + i * KVM_CPUID_ENTRY2.bytes),
    );
    const sizes = entries.find((entry) => entry.function === 0x8000_0008);
    expect((sizes!.eax >>> 16) & 0xff).toBe(0xff);
    const features = entries.find((entry) => entry.function === 7 && entry.index === 0);
    expect(features!.ebx & ((1 << 4) | (1 << 11))).toBe(0);
    expect(features!.ecx & (1 << 5)).toBe(0);
  });

  it('refuses flags, a short list and a bad address', async () => {
    const list = new Uint8Array(KVM_TDX_CAPABILITIES.bytes);
    KVM_TDX_CAPABILITIES.patch(list, { cpuid: { nent: 1, padding: 0 } });
    expect(await refusal(td.command(td.vm, KVM_TDX.CAPABILITIES, list, 1))).toBe('EINVAL tdx-flags');
    expect(await refusal(td.command(td.vm, KVM_TDX.CAPABILITIES, list))).toBe('E2BIG cpuid-too-short');
    expect(td.lastStructure).toEqual(list);
    expect(await refusal(td.command(td.vm, KVM_TDX.CAPABILITIES, 0x1000n))).toMatch(/^EFAULT/);
  });
});

describe('KVM_TDX_INIT_VM', () => {
  const tsx = { function: 7, flags: 1, ebx: 1 << 4 };
  it.each([
    ['flags', { flags: 1 }, 'EINVAL tdx-flags'],
    ['too many CPUID entries', { nent: 257 }, 'E2BIG cpuid-too-long'],
    ['reserved words', { reserved: 1n }, 'EINVAL tdx-reserved'],
    ['padding', { padding: 1 }, 'EINVAL cpuid-changed'],
    ['attributes', { attributes: 1n }, 'EINVAL td-attributes'],
    ['features', { xfam: 1n << 40n }, 'EINVAL td-xfam'],
    ['a missing width', { width: null }, 'EINVAL no-address-sizes'],
    ['a width of 50', { width: 50 }, 'EINVAL guest-width'],
    [
      'CPUID that cannot be configured',
      { entries: [{ function: 0x4000_0000 }] },
      'EINVAL cpuid-not-configurable',
    ],
    ['TSX', { entries: [tsx] }, 'EINVAL cpuid-unsupported'],
  ] as const)('refuses %s', async (_what, change, expected) => {
    expect(await refusal(td.initVm(change))).toBe(expected);
    expect(td.lastCommand.hw_error).toBe(0n);
  });

  it('reports in hw_error which operand the module refuses', async () => {
    const wrong = { function: 1, eax: 0xffff_ffff };
    expect(await refusal(td.initVm({ entries: [wrong] }))).toBe('EINVAL td-params-refused');
    expect(td.lastCommand.hw_error & ~0xffn).toBe(STATUS.TDX_OPERAND_INVALID);
    await td.initVm();
  });

  it('reads its structure', async () => {
    expect(await refusal(td.command(td.vm, KVM_TDX.INIT_VM, 0x1000n))).toMatch(/^EFAULT/);
  });

  it('is done once', async () => {
    await td.initVm();
    expect(await refusal(td.initVm({ flags: 1 }))).toBe('EINVAL td-exists');
  });

  it('makes a TD with 52-bit addresses where the EPT has five levels', async () => {
    await td.initVm({ width: 52 });
    expect(td.backend.sharedBit).toBe(51);
  });

  it('needs a KeyID', async () => {
    const { keyIds } = host.kernel;
    const taken = Array.from({ length: keyIds.capacity }, () => keyIds.alloc());
    expect(await refusal(td.initVm())).toBe('ENOSPC keyids-exhausted');
    for (const keyId of taken) keyIds.free(keyId);
    await td.initVm();
  });

  it('stays within misc.max', async () => {
    host.tdx.keyIdResource.max = 0;
    expect(await refusal(td.initVm())).toBe('EBUSY keyid-limit');
    expect(account(host)).toMatchObject({ keyIds: 0, charged: 0 });
    host.tdx.keyIdResource.max = null;
    await td.initVm();
  });

  it('needs an online processor in every package', async () => {
    await host.kernel.cpuOffline(2);
    await host.kernel.cpuOffline(3);
    expect(await refusal(td.initVm())).toBe('EIO package-offline');
    expect(account(host)).toMatchObject({ keyIds: 0, charged: 0 });
    await host.kernel.cpuOnline(2);
    await host.kernel.cpuOnline(3);
    await td.initVm();
  });

  it.each(Array.from({ length: 7 }, (_, i) => i))(
    'gives everything back without page %i',
    async (failing) => {
      const before = account(host);
      let asked = 0;
      host.kernel.allocator.fault = (purpose) => /TDR|TDCX/.test(purpose) && asked++ === failing;
      expect(await refusal(td.initVm())).toBe('ENOMEM no-page');
      host.kernel.allocator.fault = null;
      expect(account(host).keyIds).toBe(0);
      expect(account(host).usedPages - before.usedPages).toBeLessThan(3);
    },
  );

  it('asks for another try without entropy', async () => {
    host.machine.seam.fault = (lp) => (lp.regs.d[0] === 9 ? STATUS.TDX_RND_NO_ENTROPY : undefined);
    expect(await refusal(td.initVm())).toBe('EAGAIN no-entropy');
    host.machine.seam.fault = null;
    await td.initVm();
  });
});

describe('vCPUs of a TD', () => {
  it('come after KVM_TDX_INIT_VM, with a split interrupt controller', async () => {
    expect(await refusal(td.addVcpu(0))).toBe('EIO td-not-initialized');
    const other = await td.task.ioctl(td.kvm, KVM.CREATE_VM, KVM_VM_TYPE.TDX);
    await td.command(other, KVM_TDX.INIT_VM, initVmBytes());
    expect(await refusal(td.task.ioctl(other, KVM.CREATE_IRQCHIP))).toBe('ENOTTY irqchip-protected-eoi');
    expect(await refusal(td.task.ioctl(other, KVM.CREATE_VCPU, 0))).toBe('EINVAL no-split-irqchip');
    await td.initVm();
    await td.addVcpu(0);
  });

  it('are as many as there are processors', async () => {
    expect(await td.task.ioctl(td.vm, KVM.CHECK_EXTENSION, KVM_CAP.MAX_VCPUS)).toBe(4);
  });

  it('have the TSC of the TD', async () => {
    await td.initVm();
    const vcpu = await td.addVcpu(0);
    expect(await refusal(td.task.ioctl(vcpu, KVM.SET_TSC_KHZ, 1_000_000))).toBe('EINVAL tsc-protected');
    expect(await td.task.ioctl(vcpu, KVM.GET_TSC_KHZ)).toBe(await td.task.ioctl(td.vm, KVM.GET_TSC_KHZ));
  });

  it('are initialised once, without flags, with x2APIC', async () => {
    await td.initVm();
    const bare = await td.task.ioctl(td.vm, KVM.CREATE_VCPU, 0);
    expect(await refusal(td.command(bare, KVM_TDX.INIT_VCPU))).toBe('EINVAL no-x2apic');
    await td.setCpuid(bare);
    expect(await refusal(td.command(bare, KVM_TDX.INIT_VCPU, 0n, 1))).toBe('EINVAL tdx-flags');
    await td.command(bare, KVM_TDX.INIT_VCPU);
    expect(await refusal(td.command(bare, KVM_TDX.INIT_VCPU))).toBe('EINVAL vcpu-initialized');
    expect(await refusal(td.command(bare, 77))).toBe('EINVAL tdx-command');
  });

  it('keep the TD busy while they are being created', async () => {
    await td.initVm();
    const attempts: string[] = [];
    host.kernel.schedule = async (point) => {
      if (point !== 'vcpu-create') return;
      host.kernel.schedule = null;
      attempts.push(await refusal(td.finalize()));
      attempts.push(await refusal(td.task.ioctl(td.vm, KVM.SET_TSC_KHZ, 0)));
    };
    await td.addVcpu(0);
    expect(attempts).toEqual(['EBUSY vcpu-being-created', 'EINVAL tsc-khz-after-vcpus']);
    await td.finalize();
  });

  it('run when they are initialised and the TD is final', async () => {
    await td.initVm();
    await td.addVcpu(0, false);
    expect(await refusal(td.run())).toBe('EINVAL td-not-runnable');
    await td.command(td.vcpus[0]!.fd, KVM_TDX.INIT_VCPU);
    expect(await refusal(td.run())).toBe('EINVAL td-not-runnable');
    expect(await refusal(td.preFault(GUEST_MEMORY, 1))).toBe('EOPNOTSUPP td-not-final');
  });

  it('keep their registers to themselves', async () => {
    await td.initVm();
    await td.addVcpu(0);
    expect(await refusal(td.task.ioctl(td.vcpus[0]!.fd, KVM.GET_REGS, new Uint8Array(144)))).toMatch(
      /^EINVAL/,
    );
  });
});

describe('KVM_TDX_INIT_MEM_REGION', () => {
  const PAGE = BigInt(PAGE_4K);
  const region = (source_addr: bigint, gpa: bigint, nr_pages: bigint, flags = 0): Promise<unknown> =>
    td.command(
      td.vcpus[0]!.fd,
      KVM_TDX.INIT_MEM_REGION,
      KVM_TDX_INIT_MEM_REGION.encode({ source_addr, gpa, nr_pages }),
      flags,
    );
  const gpa = BigInt(GUEST_MEMORY);

  it('refuses flags and ranges', async () => {
    await td.initVm();
    await td.addVcpu(0, false);
    expect(await refusal(region(PAGE, gpa, 1n))).toBe('EINVAL vcpu-not-initialized');
    await td.command(td.vcpus[0]!.fd, KVM_TDX.INIT_VCPU);
    expect(await refusal(region(PAGE, gpa, 1n, 2))).toBe('EINVAL tdx-flags');
    for (const [source, at, pages] of [
      [1n, gpa, 1n],
      [PAGE, gpa + 1n, 1n],
      [PAGE, gpa, 0n],
      [PAGE, gpa, 1n << 60n],
      [PAGE, gpa, 1n << 52n],
      [PAGE, gpa + (1n << 47n), 1n],
      [PAGE, (1n << 47n) - PAGE, 2n],
    ] as const) {
      expect(await refusal(region(source, at, pages))).toBe('EINVAL tdx-region');
    }
  });

  it('refuses memory that is shared, has no file, was added, or has no source', async () => {
    await td.initVm();
    await td.addVcpu(0);
    const source = BigInt(await td.userBuffer(PAGE_4K));
    expect(await refusal(region(source, gpa, 1n))).toBe('EINVAL no-gmem-slot');
    await td.addMemory(4);
    expect(await refusal(region(PAGE, gpa, 1n))).toBe('EFAULT source-missing');
    await td.setPrivate(GUEST_MEMORY, 1, false);
    for (const from of [source, 0n]) {
      expect(await refusal(region(from, gpa, 1n))).toBe('EINVAL not-private');
    }
    await td.setPrivate(GUEST_MEMORY, 1, true);
    expect(await refusal(region(0n, gpa, 1n))).toBe('EOPNOTSUPP no-source');
    await region(source, gpa, 1n);
    expect(await refusal(region(source, gpa, 1n))).toBe('EIO page-already-added');
    await td.task.close(td.gmem);
    expect(await refusal(region(source, gpa + PAGE, 1n))).toBe('EFAULT gmem-closed');
  });

  it('says where it stopped, and goes on from there', async () => {
    await td.initVm();
    await td.addVcpu(0);
    await td.addMemory(4);
    await td.setPrivate(GUEST_MEMORY + 2 * PAGE_4K, 1, false);
    expect(await refusal(td.initRegion(GUEST_MEMORY, new Uint8Array(4 * PAGE_4K)))).toBe(
      'EINVAL not-private',
    );
    const left = KVM_TDX_INIT_MEM_REGION.decode(td.lastStructure);
    expect(left).toMatchObject({ gpa: gpa + 2n * PAGE, nr_pages: 2n });
    await td.setPrivate(GUEST_MEMORY + 2 * PAGE_4K, 1, true);
    await td.command(td.vcpus[0]!.fd, KVM_TDX.INIT_MEM_REGION, td.lastStructure, 1);
    expect(KVM_TDX_INIT_MEM_REGION.decode(td.lastStructure).nr_pages).toBe(0n);
  });

  it('ends with EINTR between pages', async () => {
    await td.initVm();
    await td.addVcpu(0);
    await td.addMemory(4);
    const source = await td.userBuffer(4 * PAGE_4K);
    td.task.signal();
    expect(await refusal(region(BigInt(source), gpa, 4n))).toMatch(/^EINTR/);
    expect(KVM_TDX_INIT_MEM_REGION.decode(td.lastStructure).nr_pages).toBe(4n);
  });
});

describe('a slot of a TD', () => {
  it('has no address with the shared bit, once it is known', async () => {
    const set = async (gpa: bigint, slot: number) => {
      const request = {
        slot,
        guest_phys_addr: gpa,
        memory_size: BigInt(PAGE_4K),
        userspace_addr: BigInt(await td.userBuffer(PAGE_4K)),
      };
      const bytes = KVM_USERSPACE_MEMORY_REGION2.encode(request);
      return refusal(td.task.ioctl(td.vm, KVM.SET_USER_MEMORY_REGION2, bytes));
    };
    expect(await set(1n << 47n, 0)).toBe('done');
    await td.initVm();
    await td.addVcpu(0);
    expect(await set((1n << 47n) + 4096n, 1)).toBe('EINVAL slot-gpa-alias');
    expect(await set((1n << 47n) - 4096n, 1)).toBe('done');
    expect(await set(1n << 48n, 2)).toBe('done');
    await td.finalize();
    expect(await refusal(td.preFault(2 ** 47, 1))).toBe('EINVAL pre-fault-alias');
    expect(await refusal(td.preFault(2 ** 49, 1))).toBe('ENOENT pre-fault-no-slot');
  });
});

describe('KVM_TDX_FINALIZE_VM', () => {
  it('is for a TD being built, once', async () => {
    expect(await refusal(td.finalize())).toBe('EINVAL td-not-being-built');
    await td.initVm();
    await td.addVcpu(0);
    await td.finalize();
    expect(await refusal(td.finalize())).toBe('EINVAL td-not-being-built');
    expect(await refusal(td.command(td.vcpus[0]!.fd, KVM_TDX.INIT_VCPU))).toBe('EINVAL td-not-being-built');
    expect(await refusal(td.command(td.vcpus[0]!.fd, KVM_TDX.GET_CPUID))).toBe('EINVAL td-not-being-built');
    expect(await refusal(td.addVcpu(1))).toBe('EIO td-not-initialized');
  });

  it('breaks the VM without vCPUs, and says why in hw_error', async () => {
    await td.initVm();
    expect(await refusal(td.finalize())).toBe('EIO vm-bugged');
    expect(td.lastCommand.hw_error).toBe(STATUS.TDX_NO_VCPUS);
    expect(await refusal(td.capabilities())).toBe('EIO vm-bugged');
  });

  it('asks for another try while the module is busy', async () => {
    await td.initVm();
    await td.addVcpu(0);
    host.machine.seam.fault = (lp) => (lp.regs.d[0] === 17 ? STATUS.TDX_OPERAND_BUSY : undefined);
    expect(await refusal(td.finalize())).toBe('EBUSY td-busy');
    host.machine.seam.fault = null;
    await td.finalize();
  });
});

describe('KVM_TDX_GET_CPUID', () => {
  const list = (nent: number): Uint8Array => {
    const bytes = new Uint8Array(KVM_CPUID2.bytes + nent * KVM_CPUID_ENTRY2.bytes);
    KVM_CPUID2.patch(bytes, { nent });
    return bytes;
  };

  it('gives what the TD was made with, and how much room that takes', async () => {
    await td.initVm();
    await td.addVcpu(0);
    const { fd } = td.vcpus[0]!;
    expect(await refusal(td.command(fd, KVM_TDX.GET_CPUID, list(2)))).toBe('E2BIG cpuid-too-short');
    const { nent } = KVM_CPUID2.decode(td.lastStructure);
    expect(nent).toBeGreaterThan(20);
    const { structure } = await td.command(fd, KVM_TDX.GET_CPUID, list(nent));
    const entries = Array.from({ length: nent }, (_, i) =>
      KVM_CPUID_ENTRY2.decode(structure, KVM_CPUID2.bytes + i * KVM_CPUID_ENTRY2.bytes),
    );
    const sizes = entries.find((entry) => entry.function === 0x8000_0008);
    expect((sizes!.eax >>> 16) & 0xff).toBe(48);
    expect(await refusal(td.command(fd, KVM_TDX.GET_CPUID, 0x1000n))).toMatch(/^EFAULT/);
  });
});
