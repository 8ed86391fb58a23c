/** KVM_PRE_FAULT_MEMORY for protected guests: memory that is the host's is not given away. */
import { describe, expect, it } from 'vitest';
import { KVM } from '../../../../src/abi/kvm/ioctl.ts';
import { GUEST_MEMFD_FLAG, KVM_MEM, KVM_PRE_FAULT_MEMORY } from '../../../../src/abi/kvm/structs.ts';
import { KVM_VM_TYPE } from '../../../../src/abi/kvm/vm-types.ts';
import { MAP } from '../../../../src/abi/system-call-flags.ts';
import { KvmSession, PAGE, READ_WRITE, refusal } from '../../kvm-session.ts';

const BASE = 0x4000_0000;

describe('pre-faulting memory of a protected guest', () => {
  it('refuses what is shared, which user space goes on using', async () => {
    const session = await KvmSession.start({ inPlaceConversion: true }, false, { hypervisor: 'pkvm' });
    const { task } = session;
    const vm = await session.createVm(KVM_VM_TYPE.ARM_PROTECTED);
    const file = await session.createFile(vm, 1, GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED);
    const memory = await task.mmap({ lengthBytes: PAGE, prot: READ_WRITE, flags: MAP.SHARED, fd: file });
    await session.setRegion(vm, {
      slot: 0,
      flags: KVM_MEM.GUEST_MEMFD,
      guest_phys_addr: BigInt(BASE),
      memory_size: BigInt(PAGE),
      userspace_addr: BigInt(memory),
      guest_memfd: file,
    });
    const { fd } = await session.runner(vm, function* (cpu) {
      yield* cpu.hlt();
    });
    const range = KVM_PRE_FAULT_MEMORY.encode({ gpa: BigInt(BASE), size: BigInt(PAGE) });
    expect(await refusal(task.ioctl(fd, KVM.PRE_FAULT_MEMORY, range))).toBe('EFAULT pkvm-not-the-guests');
    await task.store(memory, Uint8Array.of(7));
    expect(await task.load(memory, 1)).toEqual(Uint8Array.of(7));
    await task.exit();
  });
});
