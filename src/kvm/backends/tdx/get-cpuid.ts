/** KVM_TDX_GET_CPUID: the CPUID values that the TD was given, read from its metadata (Linux host rules 2.2, 1.7). */
import { KernelError } from '../../../abi/errno.ts';
import {
  KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
  KVM_CPUID2,
  KVM_MAX_CPUID_ENTRIES,
} from '../../../abi/kvm/structs.ts';
import type { Cpu } from '../../../kernel/cpu.ts';
import type { Task } from '../../../kernel/process/task.ts';
import { ADDRESS_SIZES_LEAF, type CpuidEntry, GUEST_WIDTH_SHIFT, joined } from './capabilities.ts';
import { readTdField, TD_FIELD } from './metadata.ts';
import type { TrustDomain } from './trust-domain.ts';

const FIRST_EXTENDED_LEAF = 0x8000_0000;
/** Leaves and subleaves that a field id has room for. */
const MAX_LEAF = 0x7f;
const MAX_SUBLEAF = 0x7f;
/** In a field id: leaf bit 31, leaf bits 6:0, subleaf, and "no subleaf" with a subleaf of ones. */
const LEAF_31 = 1n << 16n;
const LEAF_SHIFT = 9n;
const SUBLEAF_SHIFT = 1n;
const NO_SUBLEAF = 0x1fen;

/** Throws EFAULT, EIO, E2BIG with the number of entries needed written back. @internal */
export async function getCpuid(td: TrustDomain, task: Task, address: bigint): Promise<void> {
  const cpu = task.kernel.cpus[task.cpu]!;
  const { nent } = KVM_CPUID2.decode(await task.copyIn(address, KVM_CPUID2.bytes));
  const entries = [...leaves(td, cpu, 0), ...leaves(td, cpu, FIRST_EXTENDED_LEAF)].slice(
    0,
    KVM_MAX_CPUID_ENTRIES,
  );
  const head = KVM_CPUID2.encode({ nent: entries.length });
  if (nent < entries.length) {
    await task.copyOut(address, head);
    throw new KernelError('E2BIG', 'cpuid-too-short', `the TD has ${entries.length} CPUID entries`, {
      nent,
      needed: entries.length,
    });
  }
  await task.copyOut(address, joined(head, entries));
}

/** All leaves from `first`, whose EAX is the number of the last. */
function leaves(td: TrustDomain, cpu: Cpu, first: number): readonly CpuidEntry[] {
  const [head] = readLeaf(td, cpu, first);
  if (head === undefined) {
    throw new KernelError(
      'EIO',
      'cpuid-unreadable',
      `the module does not tell CPUID 0x${first.toString(16)}`,
    );
  }
  const entries = [head];
  for (let leaf = first + 1; leaf <= head.eax; leaf++) entries.push(...readLeaf(td, cpu, leaf));
  return entries;
}

/** A leaf without subleaves, or its subleaves from 0 up to the first that is missing. */
function readLeaf(td: TrustDomain, cpu: Cpu, leaf: number): readonly CpuidEntry[] {
  if (leaf % FIRST_EXTENDED_LEAF > MAX_LEAF) return [];
  const whole = readEntry(td, cpu, leaf, null);
  if (whole !== null) return [whole];
  const entries: CpuidEntry[] = [];
  for (let subleaf = 0; subleaf <= MAX_SUBLEAF; subleaf++) {
    const entry = readEntry(td, cpu, leaf, subleaf);
    if (entry === null) break;
    entries.push(entry);
  }
  return entries;
}

function readEntry(td: TrustDomain, cpu: Cpu, leaf: number, subleaf: number | null): CpuidEntry | null {
  const field =
    TD_FIELD.CPUID_VALUES |
    (leaf >= FIRST_EXTENDED_LEAF ? LEAF_31 : 0n) |
    (BigInt(leaf % FIRST_EXTENDED_LEAF) << LEAF_SHIFT) |
    (subleaf === null ? NO_SUBLEAF : BigInt(subleaf) << SUBLEAF_SHIFT);
  const ab = readTdField(td, cpu, field);
  if (ab === null) return null;
  const cd = readTdField(td, cpu, field + 1n) ?? 0n;
  const half = (value: bigint, shift: bigint): number => Number((value >> shift) & 0xffff_ffffn);
  const entry = {
    function: leaf,
    index: subleaf ?? 0,
    flags: subleaf === null ? 0 : KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
    eax: half(ab, 0n),
    ebx: half(ab, 32n),
    ecx: half(cd, 0n),
    edx: half(cd, 32n),
    padding: [0, 0, 0],
  };
  // Older modules do not tell the guest's width, which KVM knows from the shared bit.
  if (leaf === ADDRESS_SIZES_LEAF) {
    entry.eax = ((entry.eax & 0xff00_ffff) | ((td.sharedBit! + 1) << GUEST_WIDTH_SHIFT)) >>> 0;
  }
  return entry;
}
