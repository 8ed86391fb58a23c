import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GUEST_MEMFD_FLAG, KVM_MEM } from '../../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MAP } from '../../../src/abi/system-call-flags.ts';
import { KvmSession, PAGE, READ_WRITE } from '../kvm-session.ts';

const GPA = 0x10_0000;
const PAGES = 4;
const SW_PROTECTED = 1;
const ENDS = ['vm', 'vcpu', 'file', 'slot', 'mapping', 'run page'] as const;

describe('VM, slot, file and mapping', () => {
  it('go in any order, and nothing is left', async () => {
    const orders = fc.shuffledSubarray([...ENDS], { minLength: ENDS.length });
    await fc.assert(
      fc.asyncProperty(orders, fc.boolean(), async (order, inPlaceConversion) => {
        const session = await KvmSession.start({ inPlaceConversion });
        const { task } = session;
        const vm = await session.createVm(SW_PROTECTED);
        const isShared = inPlaceConversion ? GUEST_MEMFD_FLAG.INIT_SHARED : 0n;
        const file = await session.createFile(vm, PAGES, GUEST_MEMFD_FLAG.MMAP | isShared);
        const mapping = await task.mmap({
          lengthBytes: PAGES * PAGE,
          prot: READ_WRITE,
          flags: MAP.SHARED,
          fd: file,
        });
        const region = {
          slot: 0,
          flags: KVM_MEM.GUEST_MEMFD,
          guest_phys_addr: BigInt(GPA),
          memory_size: BigInt(PAGES * PAGE),
          userspace_addr: BigInt(mapping),
          guest_memfd: file,
        };
        await session.setRegion(vm, region);
        if (!inPlaceConversion) await session.setAttributes(vm, GPA, PAGE, 8n);
        const runner = await session.runner(vm, function* (cpu) {
          yield* cpu.write(GPA, Uint8Array.of(1));
        });
        expect(await runner.run()).toBe('HLT');
        const { inode } = session.vm(vm).files.open.values().next().value!;
        expect(inode.allocatedPages).toBe(1);
        let hasVm = true;
        let hasSlot = true;
        let references = 2;
        for (const end of order) {
          if (end === 'vm') {
            await task.close(vm);
            hasVm = false;
          } else if (end === 'vcpu') await task.close(runner.fd);
          else if (end === 'run page') await task.munmap(runner.page, 3 * PAGE);
          else if (end === 'slot' && hasVm) {
            await session.setRegion(vm, { ...region, flags: 0, memory_size: 0n });
            hasSlot = false;
          } else if (end === 'file') {
            const hole = FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE;
            await task.fallocate(file, hole, PAGE, PAGE);
            await task.close(file);
            references--;
          } else if (end === 'mapping') {
            await task.munmap(mapping, PAGES * PAGE);
            references--;
          }
          expect(inode.allocatedPages).toBe(references > 0 ? 1 : 0);
          if (hasVm && hasSlot) expect(session.vm(vm).slots.get(0)!.backing === null).toBe(references === 0);
        }
        expect(session.leaks()).toEqual({ pages: 0, objects: 0 });
      }),
      { numRuns: 40 },
    );
  });
});
