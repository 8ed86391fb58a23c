/** What protected guests of pKVM ask of the hypervisor. */
import { PAGE_4K } from '../../abi/address.ts';
import { GUEST_CALL, SMCCC, X } from '../../abi/pkvm.ts';
import type { GuestCpu, GuestFlow } from './flow.ts';

/** Length of HVC in bytes. */
const HVC_LENGTH = 4;

/** HVC with a function and up to three arguments; returns x0, signed. @public */
export function* hvc(cpu: GuestCpu, call: number, x1 = 0, x2 = 0, x3 = 0): GuestFlow<number> {
  // x0 to x3 are registers 0 to 3.
  const registers = { rax: BigInt(call), rcx: BigInt(x1), rdx: BigInt(x2), rbx: BigInt(x3) };
  const out = yield* cpu.technology('hvc', HVC_LENGTH, registers);
  return Number(BigInt.asIntN(64, out[X.x0]!));
}

/** Lets the host use pages from `gpa` on; returns the first status that is no success. @public */
export function sharePages(cpu: GuestCpu, gpa: number, pages = 1): GuestFlow<number> {
  return forPages(cpu, GUEST_CALL.memShare, gpa, pages);
}

/** Takes shared pages back; refused while the host still uses one of them. @public */
export function unsharePages(cpu: GuestCpu, gpa: number, pages = 1): GuestFlow<number> {
  return forPages(cpu, GUEST_CALL.memUnshare, gpa, pages);
}

/** Says that device registers are at the page of `gpa`: accesses there go to the host. @public */
export function guardMmio(cpu: GuestCpu, gpa: number): GuestFlow<number> {
  return hvc(cpu, GUEST_CALL.mmioGuard, gpa);
}

function* forPages(cpu: GuestCpu, call: number, gpa: number, pages: number): GuestFlow<number> {
  for (let i = 0; i < pages; i++) {
    const status = yield* hvc(cpu, call, gpa + i * PAGE_4K);
    if (status !== SMCCC.success) return status;
  }
  return SMCCC.success;
}
