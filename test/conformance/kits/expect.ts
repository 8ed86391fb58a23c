/** What cases expect of exits and of memory. */
import { expect } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { KVM_MEMORY_EXIT_FLAG_PRIVATE, KVM_RUN_EXIT } from '../../../src/abi/kvm/exits.ts';
import { UserFault } from '../../../src/kernel/process/system-calls.ts';
import type { Exit, TestVm } from './test-vm.ts';

/** KVM_RUN ended with EFAULT and a memory fault at the page of `gpa`. */
export function expectMemoryFault({ name, errno, union }: Exit, gpa: number, isPrivate: boolean): void {
  expect([name, errno]).toEqual(['MEMORY_FAULT', 'EFAULT']);
  expect(KVM_RUN_EXIT.MEMORY_FAULT.decode(union)).toEqual({
    flags: isPrivate ? KVM_MEMORY_EXIT_FLAG_PRIVATE : 0n,
    gpa: BigInt(gpa),
    size: BigInt(PAGE_4K),
  });
}

/** The first byte that user space sees of each page of [gpa, gpa + pages * 4 KiB); 'SIGBUS' where it sees none. */
export async function hostView(vm: TestVm, gpa: number, pages: number): Promise<(number | string)[]> {
  const seen: (number | string)[] = [];
  for (let i = 0; i < pages; i++) {
    try {
      seen.push((await vm.hostLoad(gpa + i * PAGE_4K, 1))[0]!);
    } catch (error) {
      if (!(error instanceof UserFault)) throw error;
      seen.push(error.signal);
    }
  }
  return seen;
}
