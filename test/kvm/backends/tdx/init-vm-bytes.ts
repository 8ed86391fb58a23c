/** struct kvm_tdx_init_vm as tests want it. */
import { KVM_CPUID_ENTRY2 } from '../../../../src/abi/kvm/structs.ts';
import { KVM_TDX_INIT_VM } from '../../../../src/abi/kvm/tdx.ts';

export interface InitVmChange {
  readonly attributes?: bigint;
  readonly xfam?: bigint;
  readonly reserved?: bigint;
  readonly padding?: number;
  readonly width?: number | null;
  readonly entries?: readonly Parameters<typeof KVM_CPUID_ENTRY2.encode>[0][];
  readonly flags?: number;
  readonly nent?: number;
}

/** struct kvm_tdx_init_vm with CPUID 0x80000008 for a guest physical address width of 48 bits. */
export function initVmBytes({
  attributes = 1n << 28n,
  xfam = 3n,
  reserved = 0n,
  padding = 0,
  width = 48,
  entries = [],
  nent,
}: InitVmChange = {}): Uint8Array {
  const all = [...(width === null ? [] : [{ function: 0x8000_0008, eax: (width << 16) >>> 0 }]), ...entries];
  const head = KVM_TDX_INIT_VM.encode({
    attributes,
    xfam,
    mrconfigid: [1n, 2n, 3n, 4n, 5n, 6n],
    reserved: [reserved],
    cpuid: { nent: nent ?? all.length, padding },
  });
  return new Uint8Array([...head, ...all.flatMap((entry) => [...KVM_CPUID_ENTRY2.encode(entry)])]);
}
