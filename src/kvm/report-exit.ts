/** Exits in the run page: what user space reads of each, and where its answer stands. */

import { PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import {
  KVM_EXIT,
  KVM_EXIT_IO,
  KVM_MEMORY_ERROR_FLAG_PRIVATE,
  KVM_MEMORY_EXIT_FLAG_PRIVATE,
  KVM_RUN_EXIT,
} from '../abi/kvm/exits.ts';
import { u64s } from '../abi/struct.ts';
import { PIO_OFFSET } from './run-page.ts';
import type { Vcpu } from './vcpu.ts';
import type { AnsweredExit, VcpuExit } from './vcpu-exit.ts';

/** Exits that user space sees. @public */
export type UserExit = Exclude<VcpuExit, { readonly kind: 'handled' | 'interrupt' | 'page-fault' }>;

type ExitOf<K extends UserExit['kind']> = Extract<UserExit, { readonly kind: K }>;

/** The call was in long mode, a flag of KVM_EXIT_HYPERCALL. */
const LONG_MODE = 1n;
const TDX_HEAD_BYTES = 16;

/** What of an exit goes into the union. */
const UNION: { readonly [K in UserExit['kind']]: (exit: ExitOf<K>, vcpu: Vcpu) => Uint8Array | undefined } = {
  halt: () => undefined,
  shutdown: () => undefined,
  io: ({ isWrite, port, bytes }) =>
    KVM_RUN_EXIT.IO.encode({
      direction: isWrite ? KVM_EXIT_IO.OUT : KVM_EXIT_IO.IN,
      size: bytes.length,
      port,
      count: 1,
      data_offset: BigInt(PIO_OFFSET),
    }),
  mmio: ({ gpa, isWrite, bytes }) =>
    KVM_RUN_EXIT.MMIO.encode({
      phys_addr: BigInt(gpa),
      len: bytes.length,
      is_write: isWrite ? 1 : 0,
      data: bytes,
    }),
  hypercall: ({ nr, args, isLongMode }) =>
    KVM_RUN_EXIT.HYPERCALL.encode({
      nr: BigInt(nr),
      args: [...args],
      flags: isLongMode ? LONG_MODE : 0n,
    }),
  tdx: ({ nr, words }) => u64Bytes([0n, BigInt(nr), ...words]),
  'system-event': ({ type, data }) =>
    KVM_RUN_EXIT.SYSTEM_EVENT.encode({ type, ndata: data.length, data: [...data] }),
  'fail-entry': ({ hardwareReason }, { cpu }) =>
    KVM_RUN_EXIT.FAIL_ENTRY.encode({ hardware_entry_failure_reason: hardwareReason, cpu }),
  'internal-error': ({ suberror, data }) =>
    KVM_RUN_EXIT.INTERNAL_ERROR.encode({ suberror, ndata: data.length, data: [...data] }),
  'memory-fault': ({ gpa, sizeBytes, isPrivate }) =>
    KVM_RUN_EXIT.MEMORY_FAULT.encode({
      flags: isPrivate ? KVM_MEMORY_EXIT_FLAG_PRIVATE : 0n,
      gpa: BigInt(gpa),
      size: BigInt(sizeBytes),
    }),
};

const REASON: Readonly<Record<UserExit['kind'], number>> = {
  halt: KVM_EXIT.HLT,
  shutdown: KVM_EXIT.SHUTDOWN,
  io: KVM_EXIT.IO,
  mmio: KVM_EXIT.MMIO,
  hypercall: KVM_EXIT.HYPERCALL,
  tdx: KVM_EXIT.TDX,
  'system-event': KVM_EXIT.SYSTEM_EVENT,
  'fail-entry': KVM_EXIT.FAIL_ENTRY,
  'internal-error': KVM_EXIT.INTERNAL_ERROR,
  'memory-fault': KVM_EXIT.MEMORY_FAULT,
};

/**
 * Writes an exit into the run page and gives what KVM_RUN returns. Throws the errno of a memory fault. What user space
 * must answer is kept for the next KVM_RUN.
 * @public
 */
export function reportExit(vcpu: Vcpu, exit: UserExit): 0 {
  const { lp, runPage } = vcpu;
  if (exit.kind === 'memory-fault' && isOfMemfile(vcpu, exit)) {
    runPage.report(lp, KVM_EXIT.MEMORY_ERROR, memoryError(exit));
    return 0;
  }
  const encode = UNION[exit.kind] as (exit: UserExit, vcpu: Vcpu) => Uint8Array | undefined;
  runPage.report(lp, REASON[exit.kind], encode(exit, vcpu));
  // Of a read these are zeroes: user space does not find what was there before.
  if (exit.kind === 'io') runPage.setPioData(lp, exit.bytes);
  if ('complete' in exit) vcpu.unanswered = exit;
  if (exit.kind !== 'memory-fault') return 0;
  const { errno, code, text, gpa, isPrivate } = exit;
  throw new KernelError(errno, code, text, { gpa, isPrivate });
}

/** Hands user space's answer to the exit that waits for it. Returns the exit that follows at once, if one does. @public */
export function completeExit(vcpu: Vcpu): VcpuExit | undefined {
  const exit = vcpu.unanswered;
  if (exit === null) return undefined;
  vcpu.unanswered = null;
  const next = exit.complete(answerOf(vcpu, exit)) ?? undefined;
  return next?.kind === 'handled' ? undefined : next;
}

function answerOf({ lp, runPage }: Vcpu, exit: VcpuExit & AnsweredExit): Uint8Array {
  if (exit.kind === 'io') return runPage.pioData(lp, exit.bytes.length);
  const union = runPage.union(lp);
  if (exit.kind !== 'mmio') return union;
  return KVM_RUN_EXIT.MMIO.decode(union).data.subarray(0, exit.bytes.length);
}

/** The design with memfds reports another exit, and KVM_RUN succeeds. */
function isOfMemfile({ vm }: Vcpu, { gpa }: ExitOf<'memory-fault'>): boolean {
  return vm.slots.find(gpa / PAGE_4K)?.backing?.kind === 'memfile';
}

function memoryError({ gpa, sizeBytes, isPrivate }: ExitOf<'memory-fault'>): Uint8Array {
  return KVM_RUN_EXIT.MEMORY_ERROR.encode({
    flags: isPrivate ? KVM_MEMORY_ERROR_FLAG_PRIVATE : 0,
    gpa: BigInt(gpa),
    size: BigInt(sizeBytes),
  });
}

function u64Bytes(words: readonly bigint[]): Uint8Array {
  const bytes = new Uint8Array(Math.max(words.length * 8, TDX_HEAD_BYTES));
  u64s(words.length).write(new DataView(bytes.buffer), 0, [...words]);
  return bytes;
}
