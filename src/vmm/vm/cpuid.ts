/** CPUID for guests: struct kvm_cpuid2 as user space reads and writes it. */
import { KernelError } from '../../abi/errno.ts';
import { KVM } from '../../abi/kvm/ioctl.ts';
import { KVM_CPUID_ENTRY2, KVM_CPUID2, KVM_MAX_CPUID_ENTRIES } from '../../abi/kvm/structs.ts';
import type { ValuesOf } from '../../abi/struct.ts';
import { doing } from './doing.ts';
import type { GuestVcpu } from './guest-vcpu.ts';
import type { GuestVm } from './guest-vm.ts';

/** @public */
export type CpuidEntry = ValuesOf<typeof KVM_CPUID_ENTRY2>;

/** CPUID(1).ECX: x2APIC, which protected guests need. */
const X2APIC = 1 << 21;

/** `head`, which ends in struct kvm_cpuid2, and the entries behind it. @public */
export function withEntries(head: Uint8Array, entries: readonly CpuidEntry[]): Uint8Array {
  const bytes = new Uint8Array(head.length + entries.length * KVM_CPUID_ENTRY2.bytes);
  bytes.set(head);
  entries.forEach((entry, i) => {
    KVM_CPUID_ENTRY2.patch(bytes, entry, head.length + i * KVM_CPUID_ENTRY2.bytes);
  });
  return bytes;
}

/** The entries of the struct kvm_cpuid2 at `offset`. @public */
export function readEntries(bytes: Uint8Array, offset = 0): CpuidEntry[] {
  const { nent } = KVM_CPUID2.decode(bytes, offset);
  const first = offset + KVM_CPUID2.bytes;
  return Array.from({ length: nent }, (_, i) =>
    KVM_CPUID_ENTRY2.decode(bytes, first + i * KVM_CPUID_ENTRY2.bytes),
  );
}

/** KVM_GET_SUPPORTED_CPUID. @public */
export async function supportedCpuid({ calls, kvm }: GuestVm): Promise<CpuidEntry[]> {
  const room = Array.from({ length: KVM_MAX_CPUID_ENTRIES }, () => KVM_CPUID_ENTRY2.decode(EMPTY_ENTRY));
  const bytes = withEntries(KVM_CPUID2.encode({ nent: room.length }), room);
  await doing('asking for the CPUID that KVM supports', () =>
    calls.ioctl(kvm, KVM.GET_SUPPORTED_CPUID, bytes),
  );
  return readEntries(bytes);
}

const EMPTY_ENTRY = new Uint8Array(KVM_CPUID_ENTRY2.bytes);

/** KVM_SET_CPUID2: all that KVM supports, with x2APIC. @public */
export async function setCpuid(
  { calls }: GuestVm,
  vcpu: GuestVcpu,
  entries: readonly CpuidEntry[],
): Promise<void> {
  const given = entries.map((entry) =>
    entry.function === 1 ? { ...entry, ecx: (entry.ecx | X2APIC) >>> 0 } : entry,
  );
  if (!given.some((entry) => entry.function === 1)) {
    throw new KernelError(
      'ENODEV',
      'no-cpuid-1',
      'KVM supports no CPUID leaf 1, without which no guest runs',
    );
  }
  const bytes = withEntries(KVM_CPUID2.encode({ nent: given.length }), given);
  await doing(`setting the CPUID of vCPU ${vcpu.index}`, () => calls.ioctl(vcpu.fd, KVM.SET_CPUID2, bytes));
}
