/** CPUID for guests: struct kvm_cpuid2 in and out, what the host supports, what a guest reads. */
import { KernelError } from '../abi/errno.ts';
import {
  KVM_CPUID_ENTRY2,
  KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
  KVM_CPUID2,
  KVM_MAX_CPUID_ENTRIES,
} from '../abi/kvm/structs.ts';
import type { ValuesOf } from '../abi/struct.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import type { CpuidResult } from '../machine/native-platform.ts';

/** @public */
export type GuestCpuid = readonly ValuesOf<typeof KVM_CPUID_ENTRY2>[];

/** What CPUID answers for leaves that are not there. */
const NO_CPUID: CpuidResult = [0, 0, 0, 0];
/** CPUID 1, ECX: VMX, which guests do not get; the bit that says a hypervisor is there. */
const VMX = 1 << 5;
const HYPERVISOR = 1 << 31;

/** What a guest reads. @public */
export function guestCpuid(entries: GuestCpuid, leaf: number, subleaf: number): CpuidResult {
  const found = entries.find(
    (entry) =>
      entry.function === leaf &&
      ((entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) === 0 || entry.index === subleaf),
  );
  return found === undefined ? NO_CPUID : [found.eax, found.ebx, found.ecx, found.edx];
}

/** True where both have the same entries in the same order. @internal */
export function isSameCpuid(one: GuestCpuid, other: GuestCpuid): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

/** The entries of KVM_SET_CPUID2. Throws E2BIG for more than KVM takes. @public */
export async function readCpuid(arg: UserArg, task: Task): Promise<GuestCpuid> {
  const { nent } = KVM_CPUID2.decode(await task.copyIn(arg, KVM_CPUID2.bytes));
  if (nent > KVM_MAX_CPUID_ENTRIES) {
    throw new KernelError(
      'E2BIG',
      'cpuid-entries',
      `a vCPU has at most ${KVM_MAX_CPUID_ENTRIES} CPUID entries`,
      {
        nent,
      },
    );
  }
  const size = KVM_CPUID_ENTRY2.bytes;
  const bytes = await task.copyIn(arg, nent * size, KVM_CPUID2.bytes);
  return Array.from({ length: nent }, (_, i) => KVM_CPUID_ENTRY2.decode(bytes, i * size));
}

/** All leaves of the processor, as a guest may have them. @internal */
export function supportedCpuid(lp: LogicalProcessor): GuestCpuid {
  return [...lp.machine.cpuid.keys()].map((key) => {
    const [leaf, subleaf] = key.split('.') as [string, string];
    const isAlike = subleaf === '*';
    const index = isAlike ? 0 : Number.parseInt(subleaf, 16);
    const id = Number.parseInt(leaf, 16);
    const [eax, ebx, ecx, edx] = lp.cpuid(id, index);
    return {
      function: id,
      index,
      flags: isAlike ? 0 : KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
      eax,
      ebx,
      ecx: id === 1 ? ((ecx & ~VMX) | HYPERVISOR) >>> 0 : ecx,
      edx,
      padding: [0, 0, 0],
    };
  });
}

/** KVM_GET_CPUID2 and KVM_GET_SUPPORTED_CPUID. Throws E2BIG where the entries do not fit, with nothing written. @internal */
export async function writeCpuid(entries: GuestCpuid, arg: UserArg, task: Task): Promise<number> {
  const { nent } = KVM_CPUID2.decode(await task.copyIn(arg, KVM_CPUID2.bytes));
  if (nent < entries.length) {
    throw new KernelError(
      'E2BIG',
      'cpuid-entries',
      `there are ${entries.length} CPUID entries, room is for ${nent}`,
      {
        nent,
        needed: entries.length,
      },
    );
  }
  await task.copyOut(arg, KVM_CPUID2.encode({ nent: entries.length }));
  for (const [i, entry] of entries.entries()) {
    await task.copyOut(arg, KVM_CPUID_ENTRY2.encode(entry), KVM_CPUID2.bytes + i * KVM_CPUID_ENTRY2.bytes);
  }
  return 0;
}
