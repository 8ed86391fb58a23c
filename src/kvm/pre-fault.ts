/** KVM_PRE_FAULT_MEMORY: maps guest memory before the guest uses it (Linux host rules 3.6). */
import { alignDown, hex, PAGE_2M, PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { KVM_PRE_FAULT_MEMORY } from '../abi/kvm/structs.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import { isAlias } from './backend.ts';
import { isPrivateFrame, resolveFault } from './fault.ts';
import type { Vcpu } from './vcpu.ts';

const PAGE = BigInt(PAGE_4K);
const ADDRESS_END = 1n << 64n;

/**
 * Maps [gpa, gpa + size) and writes back what is left. Succeeds with any progress. Throws EINVAL for arguments, EOPNOTSUPP
 * before the VM is final, EINTR, ENOENT where no slot is, EFAULT and what the page's backing throws.
 * @public
 */
export async function preFaultMemory(vcpu: Vcpu, arg: UserArg, task: Task): Promise<number> {
  const range = KVM_PRE_FAULT_MEMORY.decode(await task.copyIn(arg, KVM_PRE_FAULT_MEMORY.bytes));
  const { gpa, size, flags } = range;
  if (flags !== 0n) throw invalid('pre-fault-flags', 'KVM_PRE_FAULT_MEMORY takes no flags', { flags });
  if (gpa % PAGE !== 0n || size % PAGE !== 0n || gpa + size >= ADDRESS_END || size === 0n) {
    throw invalid('pre-fault-range', 'the range must be whole pages and must not wrap', { gpa, size });
  }
  let done = 0n;
  try {
    while (done < size) {
      task.checkSignal();
      const end = BigInt(await preFaultPage(vcpu, Number(gpa + done), task));
      done = end - gpa < size ? end - gpa : size;
    }
  } catch (error) {
    if (!(error instanceof KernelError) || done === 0n) throw error;
  } finally {
    const left = { ...range, gpa: gpa + done, size: size - done };
    await task.copyOut(arg, KVM_PRE_FAULT_MEMORY.encode(left));
  }
  return 0;
}

/** Maps the page at `gpa`; returns where its mapping ends. */
async function preFaultPage(vcpu: Vcpu, gpa: number, task: Task): Promise<number> {
  const { vm } = vcpu;
  vm.backend.checkPreFault();
  const gfn = Math.floor(gpa / PAGE_4K);
  if (isAlias(vm.backend, BigInt(gpa))) {
    throw invalid('pre-fault-alias', `${hex(gpa)} has the bit that tells shared from private memory`, {
      gpa,
    });
  }
  for (;;) {
    const slot = vm.slots.find(gfn);
    if (slot === undefined) {
      throw new KernelError('ENOENT', 'pre-fault-no-slot', `no slot has ${hex(gpa)}`, { gpa });
    }
    if (vm.slots.isInvalid(slot)) {
      throw new KernelError('EAGAIN', 'pre-fault-slot-going', `the slot of ${hex(gpa)} is being deleted`, {
        gpa,
      });
    }
    const isPrivate = isPrivateFrame(vm, slot, gfn);
    const outcome = await resolveFault(vcpu, { gpa, isPrivate, isWrite: isPrivate }, task);
    if (outcome === 'mapped') {
      const isLarge = vm.backend.isLarge?.(gfn, isPrivate) === true;
      return alignDown(gpa, isLarge ? PAGE_2M : PAGE_4K) + (isLarge ? PAGE_2M : PAGE_4K);
    }
    if (outcome === 'retry') {
      task.checkSignal();
      await vm.kernel.schedule?.('pre-fault');
      await Promise.resolve();
      continue;
    }
    if (typeof outcome === 'string') {
      throw new KernelError('ENOENT', 'pre-fault-no-slot', `no slot has ${hex(gpa)}`, { gpa });
    }
    throw new KernelError(outcome.errno, outcome.code, outcome.text, { gpa });
  }
}

function invalid(code: string, text: string, data: Record<string, unknown>): KernelError {
  return new KernelError('EINVAL', code, text, data);
}
