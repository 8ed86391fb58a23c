/** The metadata fields of a vCPU: the VMCS of each of its VMs, and its TDVPS (module facts 9). */
import { PAGE_4K } from '../../abi/address.ts';
import type { MetadataAccess, MetadataField } from '../../abi/metadata-field.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { L2_VMCS_CLASSES, VCPU_FIELDS, VMCS_CLASS } from '../../abi/vcpu-fields.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { isSharedHpa } from '../platform.ts';
import type { TdxModule } from '../tdx-module.ts';
import type { ControlStructure } from './control-structure.ts';
import { isGpaValid } from './gpa.ts';
import { NULL_PA, TDCS, TDVPS } from './layout.ts';
import type { Loaded, MetadataElement, MetadataSpace } from './metadata.ts';
import { virtualSpecCtrl } from './spec-ctrl.ts';
import type { TrustDomain } from './trust-domain.ts';
import { storeTdvpsField } from './vcpu-metadata-write.ts';
import { VMCS, Vmcs } from './vmcs.ts';
import { L2_OWN_COPIES, PAUSE_LOOP_COPIES, storeL2VmcsField, storeVmcsField } from './vmcs-metadata-write.ts';

/** A vCPU as its fields see it. @internal */
export interface VcpuContext {
  readonly module: TdxModule;
  readonly td: TrustDomain;
  readonly tdvps: ControlStructure;
  /** The processor on which the leaf runs. */
  readonly lp: LogicalProcessor;
  readonly access: MetadataAccess;
  /** Brings TDVPS.VCPU_STATE_DETAILS up to date; only a TD that runs sees it so. */
  readonly refreshDetails?: () => void;
}

const CONTEXT_VCPU = 2;
/** Bits 2:0 of the class codes 36 to 54 count what belongs to an L2 VM, their bits 4:3 the VM. */
const FIRST_L2_CLASS = 36;
const L2_CLASS_SPAN = 8;
const MSR_BITMAP_CLASS = 1;
const POSTED_INTERRUPT_DESCRIPTOR_SIZE = 64;

/** Number of the L2 VM that a class code is about, or 0. @internal */
export function l2VmOf({ classCode }: MetadataField): number {
  return classCode < FIRST_L2_CLASS ? 0 : Math.floor((classCode - FIRST_L2_CLASS) / L2_CLASS_SPAN) + 1;
}

/** @public */
export function vcpuMetadata(context: VcpuContext): MetadataSpace {
  return {
    fields: fieldsOf(context.td.tdcs.u16(TDCS.NUM_L2_VMS)),
    context: CONTEXT_VCPU,
    load: (element) => load(context, element),
    store: (element, value, old, mask) => store(context, element, value, old, mask),
  };
}

/** By number of L2 VMs. */
const FIELDS: (readonly MetadataField[] | undefined)[] = [];

function fieldsOf(l2Vms: number): readonly MetadataField[] {
  FIELDS[l2Vms] ??= VCPU_FIELDS.filter((field) => l2VmOf(field) <= l2Vms);
  return FIELDS[l2Vms];
}

/** True for a field of the VMCS of any VM. */
function isVmcsField({ classCode }: MetadataField): boolean {
  return classCode === VMCS_CLASS || L2_VMCS_CLASSES.includes(classCode);
}

function load(context: VcpuContext, element: MetadataElement): Loaded {
  const { field, code } = element;
  if (!isVmcsField(field)) return { value: loadTdvps(context, element) };
  // Odd codes are the upper halves of 64-bit fields.
  if ((code & 1) !== 0) return { refusal: STATUS.TDX_METADATA_FIELD_ID_INCORRECT };
  const isHidden = (['host', 'debug', 'guest'] as const).every((access) => field[access][0] === 0n);
  if (isHidden) return { value: 0n };
  const vm = l2VmOf(field);
  const value = vm > 0 ? l2Value(context, vm, code) : undefined;
  return {
    value: BigInt.asUintN(8 * field.elementBytes, value ?? new Vmcs(context.tdvps, vm).read(code)),
  };
}

/** What an L2 VM's VMCS field is to its L1, where it is translated on its way into the VMCS. */
function l2Value({ tdvps, access }: VcpuContext, vm: number, code: number): bigint | undefined {
  const isHosts = access !== 'guest' && code !== VMCS.SHARED_EPTP && code !== VMCS.VIRTUAL_APIC_PAGE;
  if (isHosts) return undefined;
  if (L2_OWN_COPIES[code] !== undefined) return tdvps.u64(L2_OWN_COPIES[code] + 8 * vm);
  if (PAUSE_LOOP_COPIES[code] !== undefined) return BigInt(tdvps.u32(PAUSE_LOOP_COPIES[code] + 4 * vm));
  const vmcs = new Vmcs(tdvps, vm);
  switch (code) {
    case VMCS.GUEST_CR0:
      return asRead(
        vmcs.read(code),
        tdvps.u64(TDVPS.BASE_L2_CR0_GUEST_HOST_MASK),
        tdvps.u64(TDVPS.BASE_L2_CR0_READ_SHADOW),
      );
    case VMCS.GUEST_CR4:
      return asRead(
        vmcs.read(code),
        tdvps.u64(TDVPS.BASE_L2_CR4_GUEST_HOST_MASK),
        tdvps.u64(TDVPS.BASE_L2_CR4_READ_SHADOW),
      );
    default:
      return undefined;
  }
}

function asRead(value: bigint, mask: bigint, shadow: bigint): bigint {
  return (value & ~mask) | (shadow & mask);
}

function loadTdvps(context: VcpuContext, element: MetadataElement): bigint {
  const { module, td, tdvps } = context;
  const { field } = element;
  if (field.name === 'VCPU_STATE_DETAILS') context.refreshDetails?.();
  const value = tdvps.element(tdvpsOffset(context, element), field.elementBytes);
  return field.name === 'IA32_SPEC_CTRL' ? virtualSpecCtrl(module.platform!, td, value) : value;
}

/** The TD sees of an L2 VM's MSR bitmaps what it asked for; beside them is what it got. */
function tdvpsOffset({ access }: VcpuContext, { field, number }: MetadataElement): number {
  const isBitmap =
    l2VmOf(field) > 0 && (field.classCode - FIRST_L2_CLASS) % L2_CLASS_SPAN === MSR_BITMAP_CLASS;
  const page = isBitmap && access === 'guest' ? PAGE_4K : 0;
  return field.offset + page + field.elementBytes * number;
}

function store(
  context: VcpuContext,
  element: MetadataElement,
  value: bigint,
  old: bigint,
  mask: bigint,
): bigint {
  const { field, code } = element;
  if (!isAddressValid(context, element, value)) return STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID;
  const vm = l2VmOf(field);
  if (isVmcsField(field)) {
    if (vm === 0) return storeVmcsField(context, code, value, mask);
    return storeL2VmcsField(context, vm, code, value, mask);
  }
  // A write of the whole element does not look at what was there.
  const whole = BigInt.asUintN(8 * field.elementBytes, NULL_PA);
  return storeTdvpsField(context, element, value, mask === whole ? 0n : old, tdvpsOffset(context, element));
}

function isAddressValid(
  { module, td }: VcpuContext,
  { field, code }: MetadataElement,
  value: bigint,
): boolean {
  if (field.address === undefined || value === NULL_PA) return true;
  if (field.address === 'privateGpa') return value >> 52n === 0n && isGpaValid(td.tdcs, Number(value), true);
  const isDescriptor = isVmcsField(field) && code === VMCS.POSTED_INTERRUPT_DESCRIPTOR;
  return isSharedHpa(module.platform!, value, isDescriptor ? POSTED_INTERRUPT_DESCRIPTOR_SIZE : PAGE_4K);
}
