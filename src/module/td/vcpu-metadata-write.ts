/** Writes of TDVPS fields by VP.WR: what a field's new value must be, and what follows from it (module facts 9). */
import { PAGE_4K } from '../../abi/address.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { ControlStructure } from './control-structure.ts';
import { hasAny, TD_CTLS, XFAM } from './features.ts';
import { NULL_PA, TDCS, TDCS_PAGE, TDR, TDVPS } from './layout.ts';
import type { MetadataElement } from './metadata.ts';
import { storeMiscEnable } from './misc-enable.ts';
import { realSpecCtrl } from './spec-ctrl.ts';
import type { VcpuContext } from './vcpu-metadata.ts';
import { nativeTsc, virtualTsc } from './virtual-tsc.ts';
import { VMCS, Vmcs } from './vmcs.ts';

const NOT_VALID = STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
/** The write is done, or the value to write. */
type Ruled = 'done' | { readonly status: bigint } | { readonly value: bigint };
type Rule = (context: VcpuContext, element: MetadataElement, value: bigint, old: bigint) => Ruled;

const INVALID: Ruled = { status: NOT_VALID };
/** XBUFF by quadwords: the XSAVE header, which only the module writes. */
const XSAVE_HEADER = { first: 64, end: 72 } as const;
const PT_COMPONENT = 8;
const L2_ENABLE_SHARED_EPTP = 1n << 0n;
const NO_DEADLINE = 0xffff_ffff_ffff_ffffn;

/** @internal */
export function storeTdvpsField(
  context: VcpuContext,
  element: MetadataElement,
  value: bigint,
  old: bigint,
  offset: number,
): bigint {
  const ruled = RULES[element.field.name]?.(context, element, value, old) ?? { value };
  if (ruled === 'done') return STATUS.TDX_SUCCESS;
  if ('status' in ruled) return ruled.status;
  context.tdvps.setElement(offset, element.field.elementBytes, ruled.value);
  return STATUS.TDX_SUCCESS;
}

/** Whether CPUID causes #VEs is the TD's choice, which it can lock. */
const unlessLocked: Rule = ({ td }, _element, value, old) => {
  if (!hasAny(td.tdcs.u64(TDCS.TD_CTLS), TD_CTLS.LOCK)) return { value };
  return value === old ? 'done' : INVALID;
};

const l2Bitmap: Rule = ({ tdvps, td }, { field, number }, value) => {
  // What L1 asks for is kept, and what it gets is no more than the TD itself has.
  const own = field.offset + 8 * number;
  tdvps.setU64(own + PAGE_4K, value);
  tdvps.setU64(own, td.tdcs.u64(TDCS.MSR_BITMAPS + 8 * number) | value);
  return 'done';
};

/** The CPU's counter at a deadline of the TD's, which is now if it has passed; undefined when it is too far away. */
function nativeDeadline(tdcs: ControlStructure, now: bigint, deadline: bigint): bigint | undefined {
  if (deadline <= virtualTsc(tdcs, now)) return now;
  const native = nativeTsc(tdcs, deadline);
  if (native === undefined || native === 0n) return undefined;
  return BigInt.asIntN(64, native - now) < 0n ? undefined : native;
}

const RULES: Readonly<Record<string, Rule>> = {
  XBUFF: ({ td }, { number }, value) => {
    const { tdcs } = td;
    const hasTrace = hasAny(tdcs.u64(TDCS.XFAM), XFAM.PT);
    const isTrace = hasTrace && number === Math.floor(tdcs.u32(TDCS.XBUFF_OFFSETS + 4 * PT_COMPONENT) / 8);
    const isHeader = number >= XSAVE_HEADER.first && number < XSAVE_HEADER.end;
    return isHeader || isTrace ? { status: STATUS.TDX_METADATA_FIELD_NOT_WRITABLE } : { value };
  },
  IA32_MISC_ENABLE: ({ td, tdvps }, _element, value) =>
    storeMiscEnable(td, tdvps, value) === undefined ? 'done' : INVALID,
  IA32_SPEC_CTRL: ({ module, td }, _element, value) => ({ value: realSpecCtrl(module.platform!, td, value) }),
  CPUID_CONTROL: unlessLocked,
  CPUID_SUPERVISOR_VE: unlessLocked,
  CPUID_USER_VE: unlessLocked,
  TSC_DEADLINE: ({ td, tdvps, lp }, { number: vm }, value) => {
    if (vm === 0 || vm > td.tdcs.u16(TDCS.NUM_L2_VMS) || value === NO_DEADLINE) return { value };
    const native = nativeDeadline(td.tdcs, lp.rdtsc(), value);
    if (native === undefined) return { status: STATUS.TDX_OPERAND_INVALID };
    tdvps.setU64(TDVPS.SHADOW_TSC_DEADLINE + 8 * vm, native);
    return { value };
  },
  L2_CTLS: ({ td, tdvps }, { number: vm }, value) => {
    if (vm === 0 || vm > td.tdcs.u16(TDCS.NUM_L2_VMS)) return { value };
    const shared = tdvps.u64(TDVPS.SHADOW_SHARED_EPTP + 8 * vm);
    const reaches = hasAny(value, L2_ENABLE_SHARED_EPTP) && shared !== NULL_PA;
    const none = td.tdr.u64(TDR.TDCX_PA + 8 * TDCS_PAGE.ZERO);
    new Vmcs(tdvps, vm).write(VMCS.SHARED_EPTP, reaches ? shared : none);
    return { value };
  },
  L2_MSR_BITMAPS_1: l2Bitmap,
  L2_MSR_BITMAPS_2: l2Bitmap,
  L2_MSR_BITMAPS_3: l2Bitmap,
};
