/** The MSR bitmaps of a TD: which accesses go straight to the CPU (module facts 11). */
import { alignDown, offsetIn } from '../../abi/address.ts';
import { MSR_POLICIES, type MsrBit, type MsrPolicy } from '../../abi/msr-policy.ts';
import type { PlatformSnapshot } from '../platform.ts';
import { MODULE_MSR } from '../platform-msrs.ts';
import type { ControlStructure } from './control-structure.ts';
import { ATTRIBUTES, hasAny, XFAM } from './features.ts';
import { CPUID_FLAG, TDCS } from './layout.ts';

/** The bitmaps cover 0 to 0x1FFF and 0xC0000000 to 0xC0001FFF, in 1 KiB each, reads before writes. */
const MSRS_PER_BITMAP = 0x2000;
const BITMAP_BYTES = MSRS_PER_BITMAP / 8;
const WRITES_AT = 2 * BITMAP_BYTES;
/** First MSR of the upper range. */
const UPPER_MSRS = 0xc000_0000;

/** MSRs whose bit depends on more than one feature. */
const PERF_METRICS = 0x329;
/** IA32_PERF_CAPABILITIES bit 15: performance metrics are available. */
const PERF_METRICS_AVAILABLE = 1n << 15n;

/** Features that open a group of MSRs to the TD. */
const OPENED_BY: Readonly<
  Partial<Record<MsrBit, (tdcs: ControlStructure, msr: number, platform: PlatformSnapshot) => boolean>>
> = {
  FIXED_0: () => true,
  DYN_PERFMON: (tdcs) => isProfiled(tdcs),
  DYN_XFAM_CET: (tdcs) => hasAny(tdcs.u64(TDCS.XFAM), XFAM.CET),
  DYN_XFAM_PT: (tdcs) => hasAny(tdcs.u64(TDCS.XFAM), XFAM.PT),
  DYN_XFAM_ULI: (tdcs) => hasAny(tdcs.u64(TDCS.XFAM), XFAM.UINTR),
  DYN_XFAM_LBR: (tdcs) => hasAny(tdcs.u64(TDCS.XFAM), XFAM.LBR),
  DYN_UMWAIT: (tdcs) => tdcs.flag(TDCS.CPUID_FLAGS + CPUID_FLAG.WAITPKG),
  DYN_XFD: (tdcs) => tdcs.flag(TDCS.CPUID_FLAGS + CPUID_FLAG.XFD),
  DYN_TSX: (tdcs) => tdcs.flag(TDCS.CPUID_FLAGS + CPUID_FLAG.TSX),
  DYN_PKS: (tdcs) => hasAny(tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.PKS),
  DYN_OTHER: isOtherOpen,
};

/** Event selectors are open while the creator filters no events. */
function isOtherOpen(tdcs: ControlStructure, msr: number, platform: PlatformSnapshot): boolean {
  if (!isProfiled(tdcs)) return false;
  if (msr === MODULE_MSR.PERF_CAPABILITIES) return hasAny(tdcs.u64(TDCS.XFAM), XFAM.PT);
  if (msr === PERF_METRICS) {
    return hasAny(platform.msrs.get(MODULE_MSR.PERF_CAPABILITIES)!, PERF_METRICS_AVAILABLE);
  }
  return tdcs.u16(TDCS.EVENT_FILTERS_NUM) === 0;
}

function isProfiled(tdcs: ControlStructure): boolean {
  return hasAny(tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.PERFMON);
}

/** @public */
export type MsrAccess = 'read' | 'write';

/** True when the TD's features open the MSRs of `policy`'s row for `access`. @public */
export function isMsrOpen(
  platform: PlatformSnapshot,
  tdcs: ControlStructure,
  { start, readBit, writeBit }: MsrPolicy,
  access: MsrAccess,
): boolean {
  const bit = access === 'read' ? readBit : writeBit;
  return OPENED_BY[bit]?.(tdcs, start, platform) === true;
}

/** Clears the bits of the MSRs that the TD accesses directly; all are set before. @public */
export function openMsrs(platform: PlatformSnapshot, tdcs: ControlStructure): void {
  for (const policy of MSR_POLICIES) {
    const reads = isMsrOpen(platform, tdcs, policy, 'read');
    const writes = isMsrOpen(platform, tdcs, policy, 'write');
    if (reads) clearBits(tdcs, policy, 0);
    if (writes) clearBits(tdcs, policy, WRITES_AT);
  }
}

/** True when the bitmaps have bits for `msr`; accesses to other MSRs always exit. @public */
export function isMsrInBitmaps(msr: number): boolean {
  return msr % UPPER_MSRS < MSRS_PER_BITMAP;
}

/** True when the bitmaps let an access to `msr` through to the CPU. @public */
export function isMsrDirect(tdcs: ControlStructure, msr: number, access: MsrAccess): boolean {
  if (!isMsrInBitmaps(msr)) return false;
  const byte = tdcs.u8(byteOf(msr, access === 'write' ? WRITES_AT : 0));
  return ((byte >>> (msr % 8)) & 1) === 0;
}

function byteOf(msr: number, bitmap: number): number {
  const range = msr >= UPPER_MSRS ? BITMAP_BYTES : 0;
  return TDCS.MSR_BITMAPS + bitmap + range + Math.floor((msr % MSRS_PER_BITMAP) / 8);
}

/** Clears the bits of a row, those of a byte at once: some rows are long. */
function clearBits(tdcs: ControlStructure, { start, end }: MsrPolicy, bitmap: number): void {
  for (let msr = start; msr <= end; ) {
    const next = Math.min(alignDown(msr, 8) + 8, end + 1);
    const bits = ((1 << (next - msr)) - 1) << offsetIn(msr, 8);
    const at = byteOf(msr, bitmap);
    tdcs.setU8(at, tdcs.u8(at) & ~bits);
    msr = next;
  }
}
