/** From struct kvm_tdx_init_vm to the module's TD_PARAMS (Linux host rules 2.2). */
import { hex } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } from '../../../abi/kvm/structs.ts';
import { KVM_TDX_INIT_VM } from '../../../abi/kvm/tdx.ts';
import { encodeTdParams, type TdParams } from '../../../abi/td-params.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';
import type { Vm } from '../../vm.ts';
import {
  ADDRESS_SIZES_LEAF,
  type CpuidEntry,
  configurableCpuid,
  decodeEntries,
  GUEST_WIDTH_SHIFT,
  hasUnsupportedBits,
  supportedAttributes,
  supportedXfam,
} from './capabilities.ts';
import type { TdxHost } from './tdx-host.ts';

const NO_RBP_MOD = 1n << 2n;
const MAX_GPAW = 1n << 0n;
/** EPTP: write-back, and the number of levels less one. */
const EPTP = { LEVELS_4: 6n | (3n << 3n), LEVELS_5: 6n | (4n << 3n) } as const;
/** IA32_VMX_EPT_VPID_CAP, bit 7: EPTs of five levels. */
const VMX_EPT_VPID_CAP_MSR = 0x48c;
const EPT_5_LEVELS = 1n << 7n;
const TSC_UNIT_KHZ = 25_000;
const MEASUREMENT_BYTES = 48;

/** What a TD is made with. @internal */
export interface TdSetup {
  readonly params: Uint8Array;
  readonly attributes: bigint;
  readonly xfam: bigint;
  readonly isWide: boolean;
}

/** Decides everything that `bytes`, a struct kvm_tdx_init_vm with its entries, leaves to KVM. Throws EBUSY, EINVAL. @internal */
export function setUpTd(vm: Vm, host: TdxHost, lp: LogicalProcessor, bytes: Uint8Array): TdSetup {
  const { tdConf } = host.sysinfo;
  const request = KVM_TDX_INIT_VM.decode(bytes);
  if (vm.createdVcpus > 0) {
    throw new KernelError('EBUSY', 'vcpus-exist', 'the VM has vCPUs, which come after KVM_TDX_INIT_VM');
  }
  refuseBits('attributes', request.attributes, supportedAttributes(host.sysinfo));
  refuseBits('xfam', request.xfam, supportedXfam(host.sysinfo, lp));
  const entries = decodeEntries(bytes, KVM_TDX_INIT_VM.offsets.cpuid);
  const isWide = guestWidth(entries, lp) === 52;
  const measurement = (offset: number): Uint8Array => bytes.slice(offset, offset + MEASUREMENT_BYTES);
  const { offsets } = KVM_TDX_INIT_VM;
  const params: TdParams = {
    attributes: request.attributes | tdConf.attributesFixed1,
    xfam: request.xfam | tdConf.xfamFixed1,
    maxVcpus: vm.maxVcpus,
    eptpControls: isWide ? EPTP.LEVELS_5 : EPTP.LEVELS_4,
    configFlags: NO_RBP_MOD | (isWide ? MAX_GPAW : 0n),
    tscFrequency: Math.floor(vm.tscKhz / TSC_UNIT_KHZ),
    mrConfigId: measurement(offsets.mrconfigid),
    mrOwner: measurement(offsets.mrowner),
    mrOwnerConfig: measurement(offsets.mrownerconfig),
    cpuid: cpuidValues(host, entries),
  };
  return { params: encodeTdParams(params), attributes: params.attributes, xfam: params.xfam, isWide };
}

function refuseBits(what: string, value: bigint, supported: bigint): void {
  const other = value & ~supported;
  if (other === 0n) return;
  throw invalid(`td-${what}`, `${what} has bits that are not supported: ${hex(other)}`, { value, supported });
}

/** Finds an entry as KVM does: the index counts only where the flag says so. */
function find(entries: readonly CpuidEntry[], leaf: number, index: number): CpuidEntry | undefined {
  return entries.find(
    (entry) =>
      entry.function === leaf &&
      ((entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) === 0 || entry.index === index),
  );
}

function guestWidth(entries: readonly CpuidEntry[], lp: LogicalProcessor): number {
  const entry = find(entries, ADDRESS_SIZES_LEAF, 0);
  if (entry === undefined) {
    throw invalid(
      'no-address-sizes',
      'CPUID 0x80000008, which gives the guest physical address width, is missing',
    );
  }
  const width = (entry.eax >>> GUEST_WIDTH_SHIFT) & 0xff;
  if (width !== 48 && width !== 52) {
    throw invalid('guest-width', `the guest physical address width must be 48 or 52, not ${width}`, {
      width,
    });
  }
  if (width === 52 && (lp.rdmsr(VMX_EPT_VPID_CAP_MSR) & EPT_5_LEVELS) === 0n) {
    throw invalid('guest-width-unsupported', 'a width of 52 needs EPTs of five levels', { width });
  }
  return width;
}

/** Values of the configurable leaves in the module's order; a leaf that is not given has zeroes. */
function cpuidValues({ sysinfo }: TdxHost, entries: readonly CpuidEntry[]): TdParams['cpuid'] {
  let used = 0;
  const values = configurableCpuid(sysinfo).map((leaf) => {
    const entry = find(entries, leaf.function, leaf.index);
    if (entry === undefined) return [0, 0, 0, 0] as const;
    if (hasUnsupportedBits(entry)) {
      throw invalid('cpuid-unsupported', 'CPUID 7 has HLE, RTM or WAITPKG, which KVM keeps from TDs');
    }
    used++;
    // The module has the width from elsewhere and wants these bits zero.
    const eax = leaf.function === ADDRESS_SIZES_LEAF ? (entry.eax & 0xff00_ffff) >>> 0 : entry.eax;
    return [eax, entry.ebx, entry.ecx, entry.edx] as const;
  });
  if (used === entries.length) return values;
  const stray = entries.find(
    (entry) => !configurableCpuid(sysinfo).some((leaf) => find([entry], leaf.function, leaf.index)),
  );
  throw invalid(
    'cpuid-not-configurable',
    'a CPUID entry is not of a configurable leaf, or one is given twice',
    {
      leaf: stray?.function,
      index: stray?.index,
      entries: entries.length,
      used,
    },
  );
}

function invalid(code: string, text: string, data: Record<string, unknown> = {}): KernelError {
  return new KernelError('EINVAL', code, text, data);
}
