/** Builds an SEV-SNP guest: INIT2, LAUNCH_START, LAUNCH_UPDATE for what it starts from, LAUNCH_FINISH. */
import { PAGE_4K } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { KVM_HC_MAP_GPA_RANGE } from '../../abi/kvm/exits.ts';
import { KVM } from '../../abi/kvm/ioctl.ts';
import {
  KVM_SEV,
  KVM_SEV_CMD,
  KVM_SEV_INIT,
  KVM_SEV_SNP_LAUNCH_FINISH,
  KVM_SEV_SNP_LAUNCH_START,
  KVM_SEV_SNP_LAUNCH_UPDATE,
  KVM_SEV_SNP_PAGE_TYPE,
  type KvmSevCommandName,
} from '../../abi/kvm/sev.ts';
import { KVM_VM_TYPE } from '../../abi/kvm/vm-types.ts';
import { O } from '../../abi/system-call-flags.ts';
import type { SystemCalls } from '../../kernel/process/system-calls.ts';
import type { VmOptions } from './build-plain.ts';
import { setCpuid, supportedCpuid } from './cpuid.ts';
import { doing } from './doing.ts';
import { addMemory, setPrivate } from './guest-memory.ts';
import { addVcpu } from './guest-vcpu.ts';
import { GuestVm } from './guest-vm.ts';
import { DEFAULT_MEMORY_BYTES, layOutMemory } from './memory-layout.ts';
import { fillMemory, mapAnonymous, withBuffer } from './user-memory.ts';

/** Pages that the guest starts with, taken in in the order in which they are given. @public */
export interface SnpRegion {
  readonly gpa: number;
  readonly pages: number;
  /** First bytes of the region; zeroes follow. Nothing for pages that the firmware fills. */
  readonly source?: Uint8Array;
  /** Default NORMAL: measured by its contents. */
  readonly type?: keyof typeof KVM_SEV_SNP_PAGE_TYPE;
}

/** @public */
export interface SnpOptions extends VmOptions {
  /** Default SNP_DEFAULT_POLICY. */
  readonly policy?: bigint;
  /** Lowest address of firmware below 4 GiB; null for none. */
  readonly firmwareStart?: number | null;
  readonly regions: readonly SnpRegion[];
}

/** SMT may be on; bit 17 must be 1. @public */
export const SNP_DEFAULT_POLICY = 0x3_0000n;

/** Throws KernelError saying what was being done; what was taken until then is given back. @public */
export function buildSnp(calls: SystemCalls, options: SnpOptions): Promise<GuestVm> {
  return GuestVm.build(calls, KVM_VM_TYPE.SNP, async (vm) => {
    const sev = await doing('opening /dev/sev', () => calls.open('/dev/sev', O.RDWR | O.CLOEXEC));
    vm.owned.add(() => calls.close(sev));
    const command = (name: KvmSevCommandName, bytes: Uint8Array): Promise<void> =>
      withBuffer(calls, bytes, (address) => sevCommand(vm, sev, name, address));
    await vm.enable('EXIT_HYPERCALL', 1n << BigInt(KVM_HC_MAP_GPA_RANGE));
    await command('INIT2', KVM_SEV_INIT.encode());
    for (const range of layOutMemory(options.memoryBytes ?? DEFAULT_MEMORY_BYTES, options.firmwareStart)) {
      await addMemory(vm, range, 'split');
      await setPrivate(vm, range, true);
    }
    const cpuid = await supportedCpuid(vm);
    for (let i = 0; i < (options.vcpus ?? 1); i++) await setCpuid(vm, await addVcpu(vm), cpuid);
    const { policy = SNP_DEFAULT_POLICY } = options;
    await command('SNP_LAUNCH_START', KVM_SEV_SNP_LAUNCH_START.encode({ policy }));
    for (const region of options.regions) await launchUpdate(vm, sev, region);
    await command('SNP_LAUNCH_FINISH', KVM_SEV_SNP_LAUNCH_FINISH.encode());
  });
}

async function sevCommand(
  { calls, fd }: GuestVm,
  sev: number,
  name: KvmSevCommandName,
  data: number,
): Promise<void> {
  const bytes = KVM_SEV_CMD.encode({ id: KVM_SEV[name], data: BigInt(data), sev_fd: sev });
  await doing(`KVM_SEV_${name}`, () => calls.ioctl(fd, KVM.MEMORY_ENCRYPT_OP, bytes));
}

/** One region, taken up again where the kernel left off. */
async function launchUpdate(vm: GuestVm, sev: number, region: SnpRegion): Promise<void> {
  const { calls } = vm;
  const { gpa, pages, source = new Uint8Array(), type = 'NORMAL' } = region;
  const length = pages * PAGE_4K;
  const address = await mapAnonymous(calls, length);
  try {
    await doing('filling memory for the guest', () => fillMemory(calls, address, source));
    const update = KVM_SEV_SNP_LAUNCH_UPDATE.encode({
      gfn_start: BigInt(gpa / PAGE_4K),
      uaddr: BigInt(address),
      len: BigInt(length),
      type: KVM_SEV_SNP_PAGE_TYPE[type],
    });
    await withBuffer(calls, update, async (data) => {
      for (let left = BigInt(length); left > 0n; ) {
        await sevCommand(vm, sev, 'SNP_LAUNCH_UPDATE', data);
        const { len } = KVM_SEV_SNP_LAUNCH_UPDATE.decode(await calls.load(data, update.length));
        if (len >= left)
          throw new KernelError('EIO', 'launch-update-stuck', 'SNP_LAUNCH_UPDATE makes no progress');
        left = len;
      }
    });
  } finally {
    await calls.munmap(address, length);
  }
}
