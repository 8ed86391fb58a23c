/** Every misuse of the launch commands, in the kernel's order of checks, and what firmware failures leave behind. */
import { describe, expect, it } from 'vitest';
import { PAGE_4K, pfnOf } from '../../../../src/abi/address.ts';
import { KVM } from '../../../../src/abi/kvm/ioctl.ts';
import {
  KVM_SEV,
  KVM_SEV_CMD,
  KVM_SEV_SNP_LAUNCH_UPDATE,
  KVM_SEV_SNP_PAGE_TYPE,
} from '../../../../src/abi/kvm/sev.ts';
import {
  GUEST_MEMFD_FLAG,
  KVM_MEMORY_ATTRIBUTES2,
  KVM_PRE_FAULT_MEMORY,
} from '../../../../src/abi/kvm/structs.ts';
import { KVM_VM_TYPE } from '../../../../src/abi/kvm/vm-types.ts';
import { MAP, PROT } from '../../../../src/abi/system-call-flags.ts';
import { createHost } from '../../../../src/lab/host.ts';
import { startKvm } from '../../../../src/lab/kvm-host.ts';
import { genoaMachine } from '../../../../src/lab/machines/genoa.ts';
import type { MachineDescription } from '../../../../src/machine/description.ts';
import {
  SEV_STATUS,
  SNP_COMMAND,
  SNP_CPUID_FUNCTION,
  SNP_CPUID_HEADER,
  SNP_ID_BLOCK,
} from '../../../../src/machine/snp/firmware/commands.ts';
import { account, GUEST_MEMORY, POLICY, refusal, snpHost, UserSnp } from './user-snp.ts';

const DATA = GUEST_MEMORY + 4 * PAGE_4K;
const page = (value: number, pages = 1): Uint8Array => new Uint8Array(pages * PAGE_4K).fill(value);

describe('KVM_SEV_INIT2', () => {
  it('takes no unknown flag and no VMSA feature that the host lacks', async () => {
    const host = await snpHost();
    const user = await UserSnp.create(host);
    for (let bit = 0; bit < 32; bit++) {
      expect(await refusal(user.init({ flags: 2 ** bit })), `flag ${bit}`).toBe('EINVAL sev-init-flags');
    }
    for (let bit = 0n; bit < 64n; bit++) {
      if (bit === 5n) continue;
      expect(await refusal(user.init({ vmsa_features: 1n << bit })), `feature ${bit}`).toBe(
        'EINVAL sev-vmsa-features',
      );
    }
    expect(await refusal(user.init({ ghcb_version: 3 }))).toBe('EINVAL sev-ghcb-version');
    expect(account(host)).toMatchObject({ asids: 0, charged: 0 });
    expect(await refusal(user.init({ vmsa_features: 1n << 5n }))).toBe('done');
    expect(user.backend.guest.vmsaFeatures).toBe(0x21n);
    expect(await refusal(user.init())).toBe('EPERM sev-not-snp');
  });

  it('comes before the first vCPU', async () => {
    const host = await snpHost();
    const user = await UserSnp.create(host);
    await user.addVcpu(0);
    expect(await refusal(user.init())).toBe('EINVAL sev-init-vcpus');
    expect(await refusal(user.task.ioctl(user.vcpus[0]!.fd, KVM.RUN))).toBe('EINVAL snp-not-initialised');
  });

  it('refuses more guests than there are ASIDs, and has them again after a flush', async () => {
    const host = await snpHost();
    const before = account(host);
    const guests: UserSnp[] = [];
    for (let i = 0; i < 4; i++) guests.push(await UserSnp.launching(host, 4));
    const fifth = await UserSnp.create(host);
    expect(await refusal(fifth.init())).toBe('EBUSY asids-exhausted');
    await guests[2]!.exit();
    const commands: number[] = [];
    host.snp.snp.firmware.observer = (command) => commands.push(command);
    expect(await refusal(fifth.init())).toBe('done');
    expect(commands).toContain(SNP_COMMAND.DF_FLUSH);
    expect(await refusal(fifth.start())).toBe('done');
    for (const guest of [...guests, fifth]) if (guest !== guests[2]) await guest.exit();
    expect(account(host)).toEqual(before);
  });

  it('gives the ASID back when there is no memory', async () => {
    const host = await snpHost();
    const before = account(host);
    for (const purpose of ['snp-guest-request', 'snp-guest-response']) {
      const user = await UserSnp.create(host);
      host.kernel.allocator.fault = (wanted) => wanted === purpose;
      expect(await refusal(user.init())).toBe(
        purpose === 'snp-guest-request' ? 'ENOMEM snp-no-memory' : 'EIO snp-firmware-page',
      );
      host.kernel.allocator.fault = null;
      await user.exit();
      expect(account(host)).toEqual(before);
    }
  });
});

describe('KVM_MEMORY_ENCRYPT_OP', () => {
  it('tells other commands apart', async () => {
    const host = await snpHost();
    const user = await UserSnp.create(host);
    const of = (id: number) => refusal(user.command(id, new Uint8Array(64)));
    expect(await of(KVM_SEV.INIT)).toBe('EINVAL sev-init-type');
    expect(await of(KVM_SEV.LAUNCH_START)).toBe('ENOTTY sev-not-a-guest');
    expect(await of(KVM_SEV.CERT_EXPORT)).toBe('EINVAL sev-command');
    expect(await of(103)).toBe('EINVAL sev-command');
    expect(await of(KVM_SEV.SNP_LAUNCH_START)).toBe('ENOTTY snp-not-initialised');
    expect(await of(KVM_SEV.SNP_LAUNCH_UPDATE)).toBe('EINVAL snp-not-started');
    expect(await of(KVM_SEV.SNP_LAUNCH_FINISH)).toBe('ENOTTY snp-not-initialised');
    await user.init();
    expect(await of(KVM_SEV.LAUNCH_START)).toBe('EPERM sev-not-snp');
    expect(await of(KVM_SEV.SNP_LAUNCH_FINISH)).toBe('EINVAL snp-not-started');
  });

  it('reads nothing beyond the buffers it is given', async () => {
    const host = await snpHost();
    const user = await UserSnp.create(host);
    expect(await user.task.ioctl(user.vm, KVM.MEMORY_ENCRYPT_OP, 0)).toBe(0);
    const short = new Uint8Array(KVM_SEV_CMD.bytes - 1);
    expect(await refusal(user.task.ioctl(user.vm, KVM.MEMORY_ENCRYPT_OP, short))).toBe(
      'EFAULT buffer-too-short',
    );
    const nowhere = KVM_SEV_CMD.encode({ id: KVM_SEV.INIT2, data: 0x10n });
    expect(await refusal(user.task.ioctl(user.vm, KVM.MEMORY_ENCRYPT_OP, nowhere))).toBe(
      'EFAULT bad-address',
    );
  });
});

describe('KVM_SEV_SNP_LAUNCH_START', () => {
  it('refuses flags, policies and descriptors that are not /dev/sev', async () => {
    const host = await snpHost();
    const user = await UserSnp.create(host);
    await user.init();
    const before = account(host);
    expect(await refusal(user.start({ flags: 1 }))).toBe('EINVAL snp-launch-flags');
    expect(await refusal(user.start({ policy: POLICY | (1n << 18n) }))).toBe('EINVAL snp-policy');
    expect(await refusal(user.start({ policy: 1n << 16n }))).toBe('EINVAL snp-policy');
    // The firmware's context cannot be made without the device.
    expect(await refusal(user.start({}, user.vm))).toBe('ENOTTY snp-context');
    expect(await refusal(user.start({}, 77))).toBe('ENOTTY snp-context');
    expect(await refusal(user.start({ policy: POLICY | 0xff00n }))).toBe('EIO sev-firmware');
    expect(user.fwError).toBe(SEV_STATUS.POLICY_FAILURE);
    expect(account(host)).toEqual(before);
    expect(await refusal(user.start())).toBe('done');
    expect(await refusal(user.start())).toBe('EINVAL snp-launch-started');
  });

  it.each([
    ['GCTX_CREATE', 'ENOTTY snp-context'],
    ['LAUNCH_START', 'EIO sev-firmware'],
    ['ACTIVATE', 'EIO sev-firmware'],
  ] as const)('leaves nothing behind when the firmware refuses %s', async (name, expected) => {
    const failing = SNP_COMMAND[name];
    const host = await snpHost();
    const user = await UserSnp.create(host);
    await user.init();
    const before = account(host);
    host.snp.snp.firmware.fault = (command) => (command === failing ? SEV_STATUS.INVALID_CONFIG : null);
    expect(await refusal(user.start())).toBe(expected);
    expect(user.fwError).toBe(SEV_STATUS.INVALID_CONFIG);
    expect(account(host)).toEqual(before);
    host.snp.snp.firmware.fault = null;
    // An ASID whose guest was active once needs a flush first, which comes when ASIDs run out.
    expect(await refusal(user.start())).toBe('done');
  });
});

describe('KVM_SEV_SNP_LAUNCH_UPDATE', () => {
  it('refuses lengths, types, flags and frames that are not private memory', async () => {
    const host = await snpHost();
    const user = await UserSnp.launching(host, 8);
    const update = (values: Parameters<typeof KVM_SEV_SNP_LAUNCH_UPDATE.encode>[0]) =>
      refusal(
        user.command(
          KVM_SEV.SNP_LAUNCH_UPDATE,
          KVM_SEV_SNP_LAUNCH_UPDATE.encode({
            gfn_start: BigInt(DATA / PAGE_4K),
            len: 4096n,
            type: 1,
            ...values,
          }),
        ),
      );
    expect(await update({ len: 4095n })).toBe('EINVAL snp-launch-update');
    expect(await update({ flags: 1 })).toBe('EINVAL snp-launch-update');
    for (const type of [0, 2, 7, 255]) expect(await update({ type })).toBe('EINVAL snp-launch-update');
    expect(await update({ gfn_start: 0n })).toBe('EINVAL snp-no-private-slot');
    // Errors of pages are EIO, whatever they are.
    expect(await update({ uaddr: 0x10n })).toBe('EIO bad-address');
    await user.setPrivate(DATA, 1, false);
    expect(await update({ type: KVM_SEV_SNP_PAGE_TYPE.ZERO })).toBe('EIO snp-page-shared');
    await user.setPrivate(DATA, 1, true);
    expect(await update({ type: KVM_SEV_SNP_PAGE_TYPE.ZERO })).toBe('done');
    expect(await update({ type: KVM_SEV_SNP_PAGE_TYPE.ZERO })).toBe('EIO snp-page-assigned');
    await user.finish();
    expect(await update({ gfn_start: BigInt(DATA / PAGE_4K + 1) })).toMatch('EIO');
  });

  it('says how far it came, so that user space can go on', async () => {
    const host = await snpHost();
    const user = await UserSnp.launching(host, 10);
    await user.setPrivate(DATA + 2 * PAGE_4K, 1, false);
    const left = await user.update(DATA, page(1, 4));
    expect(left).toMatchObject({ gfn_start: BigInt(DATA / PAGE_4K + 2), len: BigInt(2 * PAGE_4K) });
    await user.setPrivate(DATA + 2 * PAGE_4K, 1, true);
    expect(await user.update(DATA + 2 * PAGE_4K, page(1, 2))).toMatchObject({ len: 0n });
    // Beyond the slot there is nothing to go on with.
    const beyond = await user.update(GUEST_MEMORY + 9 * PAGE_4K, page(1, 3));
    expect(beyond).toMatchObject({ len: BigInt(2 * PAGE_4K) });
  });

  it('gives the page back when the firmware refuses, CPUID pages with what it would take', async () => {
    const host = await snpHost();
    const user = await UserSnp.launching(host, 8);
    const before = account(host);
    host.snp.snp.firmware.fault = (command) =>
      command === SNP_COMMAND.LAUNCH_UPDATE ? SEV_STATUS.INVALID_PAGE_STATE : null;
    expect(await refusal(user.update(DATA, page(1)))).toBe('EIO sev-firmware');
    expect(user.fwError).toBe(SEV_STATUS.INVALID_PAGE_STATE);
    expect(account(host).rmp).toEqual(before.rmp);
    host.snp.snp.firmware.fault = null;
    const cpuid = page(0);
    SNP_CPUID_HEADER.patch(cpuid, { count: 1 });
    SNP_CPUID_FUNCTION.patch(cpuid, { eax_in: 1, ecx: 0xffff_ffff }, SNP_CPUID_HEADER.bytes);
    const source = await user.userBuffer(cpuid);
    const update = KVM_SEV_SNP_LAUNCH_UPDATE.encode({
      gfn_start: BigInt(DATA / PAGE_4K),
      uaddr: BigInt(source),
      len: 4096n,
      type: KVM_SEV_SNP_PAGE_TYPE.CPUID,
    });
    expect(await refusal(user.command(KVM_SEV.SNP_LAUNCH_UPDATE, update))).toBe('EIO sev-firmware');
    expect(user.fwError).toBe(SEV_STATUS.INVALID_PARAM);
    const corrected = await user.task.load(source, PAGE_4K);
    const { ecx } = SNP_CPUID_FUNCTION.decode(corrected, SNP_CPUID_HEADER.bytes);
    expect(ecx).not.toBe(0xffff_ffff);
    await user.task.store(source, corrected);
    expect(await refusal(user.command(KVM_SEV.SNP_LAUNCH_UPDATE, update))).toBe('done');
  });
});

describe('KVM_SEV_SNP_LAUNCH_FINISH', () => {
  it('takes no flags, comes once, and lets memory be pre-faulted', async () => {
    const host = await snpHost();
    const user = await UserSnp.launching(host, 8);
    const preFault = () => {
      const range = KVM_PRE_FAULT_MEMORY.encode({ gpa: BigInt(DATA), size: 8192n });
      return refusal(user.task.ioctl(user.vcpus[0]!.fd, KVM.PRE_FAULT_MEMORY, range));
    };
    expect(await preFault()).toBe('EOPNOTSUPP snp-not-launched');
    expect(await refusal(user.finish({ flags: 1 }))).toBe('EINVAL snp-launch-flags');
    expect(await refusal(user.finish())).toBe('done');
    expect(await refusal(user.finish())).toBe('EINVAL snp-launch-finished');
    expect(await preFault()).toBe('done');
    expect(user.backend.isMapped(pfnOf(DATA) + 1, true)).toBe(true);
  });

  it('holds the guest against an ID block', async () => {
    const host = await snpHost();
    const user = await UserSnp.launching(host, 8);
    const before = account(host);
    const auth = BigInt(await user.userBuffer(page(0)));
    const block = async (values: Parameters<typeof SNP_ID_BLOCK.encode>[0]) =>
      refusal(
        user.finish({
          id_block_en: 1,
          id_auth_uaddr: auth,
          id_block_uaddr: BigInt(await user.userBuffer(SNP_ID_BLOCK.encode(values))),
        }),
      );
    expect(await block({ policy: 1n })).toBe('EIO sev-firmware');
    expect(user.fwError).toBe(SEV_STATUS.POLICY_FAILURE);
    expect(await block({ policy: POLICY })).toBe('EIO sev-firmware');
    expect(user.fwError).toBe(SEV_STATUS.BAD_MEASUREMENT);
    const [context] = host.snp.snp.firmware.contexts.values();
    expect(await block({ policy: POLICY, launch_digest: context!.launchDigest })).toBe('done');
    expect(account(host).leaked).toBe(before.leaked);
  });

  it('waits until user space maps no guest memory any more', async () => {
    const host = await snpHost({}, { inPlaceConversion: true });
    const before = account(host);
    const user = await UserSnp.create(host);
    await user.init();
    await user.addMemory(8, GUEST_MEMFD_FLAG.MMAP);
    await user.start();
    const lengthBytes = 8 * PAGE_4K;
    const flags = MAP.SHARED;
    const address = await user.task.mmap({ lengthBytes, prot: PROT.READ | PROT.WRITE, flags, fd: user.gmem });
    await expect(user.task.load(address, 1)).rejects.toThrow('SIGBUS');
    const toShared = KVM_MEMORY_ATTRIBUTES2.encode({ size: BigInt(PAGE_4K), attributes: 0n });
    await user.task.ioctl(user.gmem, KVM.SET_MEMORY_ATTRIBUTES2, toShared);
    await user.task.store(address, page(5));
    expect(await refusal(user.finish())).toBe('EBUSY gmem-user-mappings');
    await user.task.munmap(address, lengthBytes);
    expect(await refusal(user.finish())).toBe('done');
    await user.exit();
    expect(account(host)).toEqual(before);
  });
});

describe('a host without SNP', () => {
  const whyNot = async (machine: MachineDescription): Promise<string> => {
    const host = createHost(machine);
    await host.kernel.boot();
    const { kvm } = await startKvm(host);
    expect(kvm.technologies.has(KVM_VM_TYPE.SNP)).toBe(false);
    return kvm.unavailable.get(KVM_VM_TYPE.SNP)!.code;
  };

  it('is not what a processor makes of it that comes later', async () => {
    const machine = genoaMachine();
    const late = { apicId: 64, package: 0, node: 0, present: false };
    const host = createHost({ ...machine, processors: [...machine.processors, late] });
    await host.kernel.boot();
    await startKvm(host);
    const lp = host.machine.hotAddProcessor(64);
    expect(host.machine.snp!.isEnabledOn(lp)).toBe(true);
  });

  it('offers no such VMs and says why', async () => {
    const { sev, ...intel } = genoaMachine();
    expect(await whyNot(intel)).toBe('snp-absent');
    const rmp = { ...sev!.rmp, start: sev!.rmp.end - 0x10_0000 };
    expect(await whyNot({ ...intel, sev: { ...sev!, rmp } })).toBe('rmp-too-small');
  });
});
