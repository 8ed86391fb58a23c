/** Writes of TDVPS fields by VP.WR: what a field's new value must be, and what follows from it (module facts 9). */
import { STATUS } from '../../abi/status-codes.ts';
import { hasAny, TD_CTLS, XFAM } from './features.ts';
import { CPUID_FLAG, LAST_TD_EXIT, NULL_PA, TDCS, TDCS_PAGE, TDR, TDVPS, VCPU_STATE } from './layout.ts';
import type { MetadataElement } from './metadata.ts';
import { storeMiscEnable } from './misc-enable.ts';
import type { VcpuContext } from './vcpu-metadata.ts';
import { VMCS, Vmcs } from './vmcs.ts';

const NOT_VALID = STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
/** The write is done, or the value to write. */
type Ruled = 'done' | { readonly status: bigint } | { readonly value: bigint };
type Rule = (context: VcpuContext, element: MetadataElement, value: bigint, old: bigint) => Ruled;

const INVALID: Ruled = { status: NOT_VALID };
/** XBUFF by quadwords: the XSAVE header, which only the module writes. */
const XSAVE_HEADER = { first: 64, end: 72 } as const;
const PT_COMPONENT = 8;
/** IA32_SPEC_CTRL.DDPD_U. */
const DDPD_U = 1n << 8n;
const L2_ENABLE_SHARED_EPTP = 1n << 0n;
const HIGHEST_LAST_TD_EXIT = BigInt(LAST_TD_EXIT.TDVMCALL);

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

const atMost =
  (limit: (context: VcpuContext) => bigint): Rule =>
  (context, _element, value) =>
    value <= limit(context) ? { value } : INVALID;

const l2Bitmap: Rule = ({ tdvps, td }, { field, number }, value) => {
  // What L1 asks for is kept, and what it gets is no more than the TD itself has.
  const own = field.offset + 8 * number;
  tdvps.setU64(own + 4096, value);
  tdvps.setU64(own, td.tdcs.u64(TDCS.MSR_BITMAPS + 8 * number) | value);
  return 'done';
};

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
  IA32_SPEC_CTRL: ({ module, td }, _element, value) => {
    const forced = module.platform!.features.ddpd && !td.cpuidFlag(CPUID_FLAG.DDPD);
    if (forced) return { value: value | DDPD_U };
    return { value: module.platform!.features.ddpd ? value : value & ~DDPD_U };
  },
  CPUID_CONTROL: unlessLocked,
  CPUID_SUPERVISOR_VE: unlessLocked,
  CPUID_USER_VE: unlessLocked,
  // A host can only end a vCPU.
  VCPU_STATE: (_context, _element, value) => (value === BigInt(VCPU_STATE.DISABLED) ? { value } : 'done'),
  VCPU_INDEX: atMost(({ td }) => BigInt(td.tdcs.u32(TDCS.NUM_VCPUS)) - 1n),
  LAST_TD_EXIT: atMost(() => HIGHEST_LAST_TD_EXIT),
  CURR_VM: atMost(({ td }) => BigInt(td.tdcs.u16(TDCS.NUM_L2_VMS))),
  L2_EXIT_HOST_ROUTING: atMost(() => 2n),
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
