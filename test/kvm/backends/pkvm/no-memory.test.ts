/** Every allocation in the life of a protected VM fails once: ENOMEM and nothing lost. */
import { describe, expect, it } from 'vitest';
import { KernelError } from '../../../../src/abi/errno.ts';
import { KVM_MEM } from '../../../../src/abi/kvm/structs.ts';
import { KVM_VM_TYPE } from '../../../../src/abi/kvm/vm-types.ts';
import type { PkvmHypervisor } from '../../../../src/hypervisor/pkvm-hypervisor.ts';
import { sharePages } from '../../../../src/lab/guest/pkvm-guest.ts';
import { KvmSession, PAGE } from '../../kvm-session.ts';

const BASE = 0x4000_0000;

/** What failed first, or undefined. */
async function life(session: KvmSession): Promise<KernelError | undefined> {
  const { task } = session;
  try {
    const vm = await session.createVm(KVM_VM_TYPE.ARM_PROTECTED);
    const file = await session.createFile(vm, 4, 0n);
    await session.setRegion(vm, {
      slot: 0,
      flags: KVM_MEM.GUEST_MEMFD,
      guest_phys_addr: BigInt(BASE),
      memory_size: BigInt(4 * PAGE),
      userspace_addr: BigInt(await session.anonymous(4)),
      guest_memfd: file,
    });
    const runner = await session.runner(vm, function* (cpu) {
      yield* cpu.write(BASE, Uint8Array.of(1));
      yield* sharePages(cpu, BASE + PAGE);
    });
    await runner.run();
    return undefined;
  } catch (error) {
    if (error instanceof KernelError) return error;
    throw error;
  } finally {
    await task.exit();
  }
}

describe('a protected VM without memory', () => {
  it('gives ENOMEM and everything back', async () => {
    let failures = 0;
    for (let failing = 0; ; failing++) {
      const session = await KvmSession.start({ inPlaceConversion: true }, false, { hypervisor: 'pkvm' });
      const { machine } = session.host;
      let count = 0;
      let failed: string | undefined;
      session.host.kernel.allocator.fault = (purpose) => {
        if (count++ !== failing) return false;
        failed = purpose;
        return true;
      };
      const error = await life(session);
      session.host.kernel.allocator.fault = null;
      const { ownership, table } = machine.hypervisor as PkvmHypervisor;
      expect([failed, [...ownership.states.touched()]]).toEqual([failed, []]);
      expect([failed, table.size]).toEqual([failed, 0]);
      expect([failed, session.leaks().pages]).toEqual([failed, 0]);
      if (failed === undefined) break;
      failures++;
      expect([failed, error?.errno]).toEqual([failed, 'ENOMEM']);
    }
    expect(failures).toBeGreaterThan(8);
  });
});
