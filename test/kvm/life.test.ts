import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KVM_MEM } from '../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MAP } from '../../src/abi/system-call-flags.ts';
import { KvmSession, PAGE, READ_WRITE, refusal } from './kvm-session.ts';

const GPA = 0x1_0000_0000;
const HOLE = FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE;

/** A protected VM that has used everything it has: two vCPUs, a file in two slots, shared memory. */
async function busyVm(session: KvmSession) {
  const { task } = session;
  const vm = await session.createVm(1);
  const file = await session.createFile(vm, 4);
  const user = await session.anonymous(4);
  for (const half of [0, 1]) {
    await session.setRegion(vm, {
      slot: half,
      flags: KVM_MEM.GUEST_MEMFD,
      guest_phys_addr: BigInt(GPA + half * 4 * PAGE),
      memory_size: BigInt(2 * PAGE),
      userspace_addr: BigInt(user + half * 2 * PAGE),
      guest_memfd: file,
      guest_memfd_offset: BigInt(half * 2 * PAGE),
    });
  }
  await session.setAttributes(vm, GPA, PAGE, 8n);
  await session.setAttributes(vm, GPA + 5 * PAGE, PAGE, 8n);
  const vcpus: number[] = [];
  for (const id of [0, 1]) {
    const runner = await session.runner(
      vm,
      function* (cpu) {
        for (const page of [0, 1, 4, 5]) yield* cpu.write(GPA + page * PAGE, Uint8Array.of(page));
      },
      id,
    );
    expect(await runner.run()).toBe('HLT');
    vcpus.push(runner.fd);
    await task.munmap(runner.page, 2 * PAGE);
  }
  await task.munmap(user, 4 * PAGE);
  return { vm, file, vcpus };
}

describe('the life of a VM', () => {
  it('leaves nothing behind whatever is closed first', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.shuffledSubarray(['kvm', 'vm', 'file', 'vcpu0', 'vcpu1', 'slot0', 'slot1'], { minLength: 7 }),
        async (order) => {
          const session = await KvmSession.start();
          const { task } = session;
          const { vm, file, vcpus } = await busyVm(session);
          const fds: Record<string, number> = {
            kvm: session.kvm,
            vm,
            file,
            vcpu0: vcpus[0]!,
            vcpu1: vcpus[1]!,
          };
          const closed = new Set<string>();
          const kernelVm = session.vm(vm);
          for (const what of order) {
            const fd = fds[what];
            if (fd !== undefined) await task.close(fd);
            else if (!closed.has('vm')) {
              await session.setRegion(vm, { slot: Number(what.at(-1)), memory_size: 0n });
            }
            closed.add(what);
            const isHeld = ['vm', 'file', 'vcpu0', 'vcpu1'].some((holder) => !closed.has(holder));
            expect(kernelVm.references > 0).toBe(isHeld);
            expect(session.host.kernel.openObjects.count('vm')).toBe(isHeld ? 1 : 0);
          }
          const { pages, objects } = session.leaks();
          expect(pages).toBe(0);
          // /dev/kvm was open when counting began.
          expect(objects).toBe(-1);
          session.host.kernel.allocator.audit();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('lasts as long as a file: holes and pages after the VM was closed', async () => {
    const session = await KvmSession.start();
    const { vm, file, vcpus } = await busyVm(session);
    for (const fd of [vm, ...vcpus]) await session.task.close(fd);
    await session.task.fallocate(file, HOLE, 0, 4 * PAGE);
    await session.task.fallocate(file, FALLOC_FL.KEEP_SIZE, 0, 4 * PAGE);
    expect(session.host.kernel.openObjects.count('vm')).toBe(1);
    await session.task.close(file);
    expect(session.leaks()).toEqual({ pages: 0, objects: 0 });
  });

  it('lasts as long as the mapping of a run page', async () => {
    const session = await KvmSession.start();
    const { task } = session;
    const vm = await session.createVm();
    const fd = await session.createVcpu(vm);
    const page = await task.mmap({ lengthBytes: PAGE, prot: READ_WRITE, flags: MAP.SHARED, fd });
    await task.close(fd);
    await task.close(vm);
    await task.store(page, Uint8Array.of(1));
    expect(session.host.kernel.openObjects.count('vm')).toBe(1);
    await task.munmap(page, PAGE);
    expect(session.leaks()).toEqual({ pages: 0, objects: 0 });
  });

  it('ends with its process, also while vCPUs run and sleep', async () => {
    const session = await KvmSession.start();
    const vm = await session.createVm();
    await session.sharedSlot(vm, 0, 0, 1);
    session.kvmHost.guests.budget = 1;
    const spinning = await session.runner(vm, function* (cpu) {
      for (;;) yield* cpu.write(0, Uint8Array.of(1));
    });
    session.host.kernel.schedule = () => new Promise((resolve) => setImmediate(resolve));
    const run = refusal(spinning.run());
    await new Promise((resolve) => setTimeout(resolve, 5));
    await session.task.exit();
    expect(await run).toBe('EINTR interrupted');
    expect(session.leaks().pages).toBe(0);
    expect(session.host.kernel.openObjects.total).toBe(0);
  });

  it('does not begin without a descriptor for it', async () => {
    const session = await KvmSession.start();
    while ((await refusal(session.createVm())) === 'done');
    // Descriptors 3 to 1023, /dev/kvm among them; a VM is an open file and the object behind it.
    expect(session.leaks().objects).toBe(2 * 1020);
    expect(await refusal(session.createVm())).toBe('EMFILE no-descriptor');
    await session.task.exit();
    expect(session.host.kernel.openObjects.total).toBe(0);
    expect(session.leaks().pages).toBe(0);
  });
});
