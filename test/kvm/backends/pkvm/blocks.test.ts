/** Protected VMs whose file has chunks of 2 MiB. */
import { describe, expect, it } from 'vitest';
import { PAGE_2M } from '../../../../src/abi/address.ts';
import { GUEST_MEMFD_FLAG, KVM_MEM } from '../../../../src/abi/kvm/structs.ts';
import { KVM_VM_TYPE } from '../../../../src/abi/kvm/vm-types.ts';
import { SMCCC } from '../../../../src/abi/pkvm.ts';
import { FALLOC_FL, MAP } from '../../../../src/abi/system-call-flags.ts';
import type { PkvmHypervisor } from '../../../../src/hypervisor/pkvm-hypervisor.ts';
import type { GuestScript } from '../../../../src/lab/guest/flow.ts';
import { sharePages } from '../../../../src/lab/guest/pkvm-guest.ts';
import { KvmSession, PAGE, READ_WRITE } from '../../kvm-session.ts';

const BASE = 0x4000_0000;
const BLOCK_PAGES = PAGE_2M / PAGE;

async function blockVm(script: GuestScript) {
  const options = { inPlaceConversion: true, hugePages: true };
  const session = await KvmSession.start(options, false, { hypervisor: 'pkvm' });
  const { task } = session;
  const vm = await session.createVm(KVM_VM_TYPE.ARM_PROTECTED);
  const file = await session.createFile(vm, 2 * BLOCK_PAGES, GUEST_MEMFD_FLAG.MMAP);
  const memory = await task.mmap({ lengthBytes: 2 * PAGE_2M, prot: READ_WRITE, flags: MAP.SHARED, fd: file });
  await session.setRegion(vm, {
    slot: 0,
    flags: KVM_MEM.GUEST_MEMFD,
    guest_phys_addr: BigInt(BASE),
    memory_size: BigInt(2 * PAGE_2M),
    userspace_addr: BigInt(memory),
    guest_memfd: file,
  });
  await task.fallocate(file, FALLOC_FL.KEEP_SIZE, 0, 2 * PAGE_2M);
  const runner = await session.runner(vm, script);
  const hypervisor = session.host.machine.hypervisor as PkvmHypervisor;
  const leaves = () => [...[...hypervisor.table.vms()][0]!.stage2.leaves()];
  return { session, task, file, memory, runner, hypervisor, leaves };
}

describe('blocks of 2 MiB', () => {
  it('are donated whole, and split when the guest shares a page of one', async () => {
    let status = -1;
    const { session, task, memory, runner, hypervisor, leaves } = await blockVm(function* (cpu) {
      yield* cpu.write(BASE + 5 * PAGE, Uint8Array.of(7));
      yield* cpu.hlt();
      status = yield* sharePages(cpu, BASE + 5 * PAGE);
    });
    await runner.run();
    expect(leaves()).toMatchObject([{ pages: BLOCK_PAGES, gfn: BASE / PAGE }]);
    await runner.run();
    expect(status).toBe(SMCCC.success);
    expect(leaves()).toHaveLength(BLOCK_PAGES);
    expect(await task.load(memory + 5 * PAGE, 1)).toEqual(Uint8Array.of(7));
    await expect(task.load(memory + 6 * PAGE, 1)).rejects.toThrow(/SIGBUS/);
    await task.exit();
    expect([...hypervisor.ownership.states.touched()]).toEqual([]);
    expect(session.leaks().pages).toBe(0);
  });

  it('come back whole or in part when a hole is punched', async () => {
    const { session, task, file, runner, hypervisor, leaves } = await blockVm(function* (cpu) {
      yield* cpu.write(BASE, Uint8Array.of(1));
      yield* cpu.write(BASE + PAGE_2M, Uint8Array.of(2));
    });
    await runner.run();
    const punch = (offset: number, length: number) =>
      task.fallocate(file, FALLOC_FL.PUNCH_HOLE | FALLOC_FL.KEEP_SIZE, offset, length);
    await punch(0, PAGE_2M);
    expect(leaves()).toMatchObject([{ pages: BLOCK_PAGES, gfn: (BASE + PAGE_2M) / PAGE }]);
    await punch(PAGE_2M + 2 * PAGE, PAGE);
    expect(leaves()).toHaveLength(BLOCK_PAGES - 1);
    await task.exit();
    expect([...hypervisor.ownership.states.touched()]).toEqual([]);
    expect(session.leaks().pages).toBe(0);
  });
});
