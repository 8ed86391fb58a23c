/** What KVM lets TDs have: attributes, extended features and CPUID bits (Linux host rules 2.1, 2.2). */
import { KVM_CPUID_ENTRY2, KVM_CPUID2 } from '../../../abi/kvm/structs.ts';
import { KVM_TDX_CAPABILITIES } from '../../../abi/kvm/tdx.ts';
import type { ValuesOf } from '../../../abi/struct.ts';
import type { TdxSysinfo } from '../../../kernel/sysinfo.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';

/** An entry of struct kvm_cpuid2. @internal */
export type CpuidEntry = ValuesOf<typeof KVM_CPUID_ENTRY2>;

/** Leaf whose EAX[23:16] is the guest's physical address width, by which user space chooses the shared bit. @internal */
export const ADDRESS_SIZES_LEAF = 0x8000_0008;
/** @internal */
export const GUEST_WIDTH_SHIFT = 16;
const GUEST_WIDTH_MASK = 0xff << GUEST_WIDTH_SHIFT;

/** Attributes that KVM knows: SEPT_VE_DISABLE. */
const KVM_ATTRIBUTES = 1n << 28n;
/** Extended state that KVM knows, of XCR0 (x87 to AVX-512, PKRU, AMX) and of XSS (CET). */
const KVM_XCR0 = 0x602ffn;
const KVM_XSS = 0x1800n;
const EXTENDED_STATE_LEAF = 0xd;

/** CPUID(7): HLE and RTM in EBX, WAITPKG in ECX. KVM does not offer what needs MSRs that a TD would take from the host. */
const FEATURES_LEAF = 7;
const UNSUPPORTED_EBX = (1 << 4) | (1 << 11);
const UNSUPPORTED_ECX = 1 << 5;
const NO_SUBLEAF = 0xffff_ffff;

/** Attributes a TD may have; 0 when the module demands others. @internal */
export function supportedAttributes({ tdConf }: TdxSysinfo): bigint {
  if ((KVM_ATTRIBUTES & tdConf.attributesFixed1) !== tdConf.attributesFixed1) return 0n;
  return KVM_ATTRIBUTES & tdConf.attributesFixed0;
}

/** Extended features a TD may have; 0 when the module demands others than the host has. @internal */
export function supportedXfam({ tdConf }: TdxSysinfo, lp: LogicalProcessor): bigint {
  const [xcr0Low, , , xcr0High] = lp.cpuid(EXTENDED_STATE_LEAF, 0);
  const [, , xssLow, xssHigh] = lp.cpuid(EXTENDED_STATE_LEAF, 1);
  const wide = (low: number, high: number): bigint => (BigInt(high) << 32n) | BigInt(low);
  const host = (wide(xcr0Low, xcr0High) & KVM_XCR0) | (wide(xssLow, xssHigh) & KVM_XSS);
  return (host & tdConf.xfamFixed1) === tdConf.xfamFixed1 ? host & tdConf.xfamFixed0 : 0n;
}

/** True for a leaf with bits that KVM keeps from TDs. @internal */
export function hasUnsupportedBits({ function: leaf, index, ebx, ecx }: CpuidEntry): boolean {
  if (leaf !== FEATURES_LEAF || index !== 0) return false;
  return (ebx & UNSUPPORTED_EBX) !== 0 || (ecx & UNSUPPORTED_ECX) !== 0;
}

/** Leaves that user space can configure, each with the bits it may set. @internal */
export function configurableCpuid({ tdConf }: TdxSysinfo): readonly CpuidEntry[] {
  return tdConf.cpuidConfigLeaves.map((id, i) => {
    const [ab = 0n, cd = 0n] = tdConf.cpuidConfigValues.slice(2 * i, 2 * i + 2);
    const leaf = Number(id & 0xffff_ffffn);
    const subleaf = Number(id >> 32n);
    const half = (value: bigint, shift: bigint): number => Number((value >> shift) & 0xffff_ffffn);
    const entry = {
      function: leaf,
      index: subleaf === NO_SUBLEAF ? 0 : subleaf,
      flags: 0,
      eax: half(ab, 0n),
      ebx: half(ab, 32n),
      ecx: half(cd, 0n),
      edx: half(cd, 32n),
      padding: [0, 0, 0],
    };
    if (leaf === ADDRESS_SIZES_LEAF) entry.eax = (entry.eax | GUEST_WIDTH_MASK) >>> 0;
    if (leaf === FEATURES_LEAF && entry.index === 0) {
      entry.ebx = (entry.ebx & ~UNSUPPORTED_EBX) >>> 0;
      entry.ecx = (entry.ecx & ~UNSUPPORTED_ECX) >>> 0;
    }
    return entry;
  });
}

/** struct kvm_tdx_capabilities with its entries. @internal */
export function encodeCapabilities(sysinfo: TdxSysinfo, lp: LogicalProcessor): Uint8Array {
  const entries = configurableCpuid(sysinfo);
  const head = KVM_TDX_CAPABILITIES.encode({
    supported_attrs: supportedAttributes(sysinfo),
    supported_xfam: supportedXfam(sysinfo, lp),
    user_tdvmcallinfo_1_r11: USER_SETUP_EVENT_NOTIFY,
    cpuid: { nent: entries.length, padding: 0 },
  });
  return joined(head, entries);
}

/** TDVMCALL SetupEventNotifyInterrupt goes to user space. */
const USER_SETUP_EVENT_NOTIFY = 1n << 1n;

/** Bytes of a structure that ends in `cpuid`, and of the entries behind it. @internal */
export function joined(head: Uint8Array, entries: readonly CpuidEntry[]): Uint8Array {
  const bytes = new Uint8Array(head.length + entries.length * KVM_CPUID_ENTRY2.bytes);
  bytes.set(head);
  entries.forEach((entry, i) => {
    KVM_CPUID_ENTRY2.patch(bytes, entry, head.length + i * KVM_CPUID_ENTRY2.bytes);
  });
  return bytes;
}

/** The entries of a struct kvm_cpuid2 in `bytes` whose head is at `offset`. @internal */
export function decodeEntries(bytes: Uint8Array, offset: number): readonly CpuidEntry[] {
  const { nent } = KVM_CPUID2.decode(bytes, offset);
  const first = offset + KVM_CPUID2.bytes;
  return Array.from({ length: nent }, (_, i) =>
    KVM_CPUID_ENTRY2.decode(bytes, first + i * KVM_CPUID_ENTRY2.bytes),
  );
}
