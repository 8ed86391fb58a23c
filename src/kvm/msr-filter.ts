/** KVM_X86_SET_MSR_FILTER: user space says which MSRs guests may read and write. */
import { KernelError } from '../abi/errno.ts';
import {
  KVM_MSR_FILTER,
  KVM_MSR_FILTER_FLAG,
  KVM_MSR_FILTER_LIMIT,
  type KVM_MSR_FILTER_RANGE,
} from '../abi/kvm/structs.ts';
import type { ValuesOf } from '../abi/struct.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import type { Vm } from './vm.ts';

/** @public */
export interface MsrFilter {
  allows(index: number, access: 'read' | 'write'): boolean;
}

/** What VMs have until user space says otherwise. @public */
export const ALLOW_ALL: MsrFilter = { allows: () => true };

type FilterRange = ValuesOf<typeof KVM_MSR_FILTER_RANGE>;

interface Rule extends FilterRange {
  /** Bit by bit, from `base` on: set is allowed. */
  readonly allowed: Uint8Array;
}

const { DEFAULT_DENY, READ, WRITE } = KVM_MSR_FILTER_FLAG;
/** Registers of the local APIC, which a filter never concerns. */
const X2APIC = { first: 0x800, last: 0x8ff } as const;

/** The first rule for a register and the kind of access counts. Throws EINVAL, EFAULT for a bitmap. @internal */
export async function setMsrFilter(vm: Vm, arg: UserArg, task: Task): Promise<number> {
  const { flags, ranges } = KVM_MSR_FILTER.decode(await task.copyIn(arg, KVM_MSR_FILTER.bytes));
  if ((flags & ~DEFAULT_DENY) !== 0) throw invalid('msr-filter-flags', 'the only flag is DEFAULT_DENY');
  const given = ranges.filter(({ nmsrs }) => nmsrs > 0);
  const isDenied = (flags & DEFAULT_DENY) !== 0;
  if (given.length === 0 && isDenied) {
    throw invalid('msr-filter-empty', 'a filter that denies by default must allow something');
  }
  const rules: Rule[] = [];
  for (const range of given) rules.push({ ...range, allowed: await readBitmap(range, task) });
  vm.msrFilter =
    rules.length === 0 ? ALLOW_ALL : { allows: (index, access) => allows(rules, !isDenied, index, access) };
  return 0;
}

async function readBitmap({ flags, nmsrs, bitmap }: FilterRange, task: Task): Promise<Uint8Array> {
  if ((flags & ~(READ | WRITE)) !== 0) {
    throw invalid('msr-filter-range-flags', 'a range is for reads, writes or both');
  }
  const bytes = Math.ceil(nmsrs / 64) * 8;
  if (bytes > KVM_MSR_FILTER_LIMIT.bitmapBytes) {
    throw invalid(
      'msr-filter-range',
      `a range has at most ${KVM_MSR_FILTER_LIMIT.bitmapBytes * 8} registers`,
    );
  }
  return task.copyIn(bitmap, bytes);
}

function allows(
  rules: readonly Rule[],
  byDefault: boolean,
  index: number,
  access: 'read' | 'write',
): boolean {
  if (X2APIC.first <= index && index <= X2APIC.last) return true;
  const kind = access === 'read' ? READ : WRITE;
  const rule = rules.find(
    ({ flags, base, nmsrs }) => (flags & kind) !== 0 && base <= index && index < base + nmsrs,
  );
  if (rule === undefined) return byDefault;
  const bit = index - rule.base;
  return ((rule.allowed[Math.floor(bit / 8)]! >> (bit % 8)) & 1) === 1;
}

function invalid(code: string, text: string): KernelError {
  return new KernelError('EINVAL', code, text);
}
