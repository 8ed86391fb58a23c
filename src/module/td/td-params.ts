/** TD_PARAMS: what the creator of a TD asks for in MNG.INIT, and the checks on it (module facts 6). */

import { MEASUREMENT_BYTES } from '../../abi/measurement.ts';
import { OPERAND } from '../../abi/operands.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { TD_PARAMS_AT, TD_PARAMS_BYTES } from '../../abi/td-params.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { cpuidKey, type PlatformSnapshot } from '../platform.ts';
import { MODULE_MSR } from '../platform-msrs.ts';
import type { TdxModule } from '../tdx-module.ts';
import { ATTRIBUTES, CONFIG_FLAGS, hasAll, hasAny, TD_CTLS, XFAM } from './features.ts';
import { MAX_VCPUS_PER_TD, MAX_VMS, TDCS, TDCS_PAGES_MIN, TDR } from './layout.ts';
import { SEPT_LEVEL } from './sept.ts';
import type { TrustDomain } from './trust-domain.ts';
import { TSC_POINT } from './virtual-tsc.ts';

/** MRCONFIGID, MROWNER, MROWNERCONFIG, as they follow each other in TD_PARAMS and in the TDCS. */
const MEASUREMENTS_BYTES = 3 * MEASUREMENT_BYTES;

/** MSR_CONFIG_CTLS bit 0: use the configured IA32_ARCH_CAPABILITIES. */
const ARCH_CAPABILITIES_CONFIGURED = 1;

/** Virtual TSC frequencies in units of 25 MHz. */
const TSC_UNIT_HZ = 25_000_000n;
const TSC_FREQUENCY_MIN = 4;
const TSC_FREQUENCY_MAX = 400;
/** The multiplier is a fixed-point number with 48 bits after the point. */

/** EPTP_CONTROLS: write-back tables, nothing else but the number of levels in bits 5:3. */
const EPTP_MEMORY_TYPE_WB = 6n;
const EPTP_LEVELS_SHIFT = 3n;
const EPTP_LEVELS_MASK = 0b111n;
/** IA32_VMX_EPT_VPID_CAP bit 7: page walks of five levels. */
const PML5_SUPPORTED = 1n << 7n;

/** Components after the legacy region and the header of an XSAVE area. */
const XSAVE_EXTENDED_REGION = 576;
const XSAVE_LEAF = 0xd;
const XSAVE_ALIGN_64 = 1 << 1;
const LAST_XFAM_BIT = 18;
const MASK_64 = 0xffff_ffff_ffff_ffffn;

/** TD_PARAMS as bytes with names. @public */
export class TdParams {
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, TD_PARAMS_BYTES);
  }

  get attributes(): bigint {
    return this.#u64(TD_PARAMS_AT.ATTRIBUTES);
  }

  get xfam(): bigint {
    return this.#u64(TD_PARAMS_AT.XFAM);
  }

  get maxVcpus(): number {
    return this.#view.getUint16(TD_PARAMS_AT.MAX_VCPUS, true);
  }

  get l2Vms(): number {
    return this.#view.getUint8(TD_PARAMS_AT.NUM_L2_VMS);
  }

  get msrConfigCtls(): number {
    return this.#view.getUint8(TD_PARAMS_AT.MSR_CONFIG_CTLS);
  }

  get archCapabilitiesConfigured(): boolean {
    return (this.msrConfigCtls & ARCH_CAPABILITIES_CONFIGURED) !== 0;
  }

  get eptpControls(): bigint {
    return this.#u64(TD_PARAMS_AT.EPTP_CONTROLS);
  }

  get configFlags(): bigint {
    return this.#u64(TD_PARAMS_AT.CONFIG_FLAGS);
  }

  get tscFrequency(): number {
    return this.#view.getUint16(TD_PARAMS_AT.TSC_FREQUENCY, true);
  }

  get measurements(): Uint8Array {
    return this.#bytes(TD_PARAMS_AT.MEASUREMENTS, TD_PARAMS_AT.MEASUREMENTS + MEASUREMENTS_BYTES);
  }

  get archCapabilities(): bigint {
    return this.#u64(TD_PARAMS_AT.ARCH_CAPABILITIES);
  }

  /** EAX, EBX, ECX, EDX of configurable leaf `index`. */
  cpuidConfig(index: number): readonly [number, number, number, number] {
    const at = TD_PARAMS_AT.CPUID_CONFIG + 16 * index;
    const word = (i: number): number => this.#view.getUint32(at + 4 * i, true);
    return [word(0), word(1), word(2), word(3)];
  }

  /** True when the bytes after `leaves` configurable leaves are zero. */
  isTailZero(leaves: number): boolean {
    return this.isZero([TD_PARAMS_AT.CPUID_CONFIG + 16 * leaves, TD_PARAMS_BYTES]);
  }

  isZero([start, end]: readonly [start: number, end: number]): boolean {
    return this.#bytes(start, end).every((byte) => byte === 0);
  }

  #u64(offset: number): bigint {
    return this.#view.getBigUint64(offset, true);
  }

  #bytes(start: number, end: number): Uint8Array {
    return new Uint8Array(this.#view.buffer, this.#view.byteOffset + start, end - start);
  }
}

const invalid = (operand: number): bigint => withOperand(STATUS.TDX_OPERAND_INVALID, operand);

/**
 * Checks everything in TD_PARAMS but CPUID, event filters and MSRs, in the ABI's order, and puts each part into the
 * TDCS as soon as it is found right: a failed MNG.INIT leaves what it got through.
 * @public
 */
export function configureTd(
  module: TdxModule,
  lp: LogicalProcessor,
  td: TrustDomain,
  params: TdParams,
): bigint {
  const platform = module.platform!;
  const { tdcs } = td;
  const { attributes, xfam, maxVcpus, l2Vms, configFlags, eptpControls, tscFrequency } = params;
  if (!areAttributesValid(platform, attributes)) return invalid(OPERAND.ATTRIBUTES);
  tdcs.setU64(TDCS.ATTRIBUTES, attributes);
  const pendingVeDisabled = hasAny(attributes, ATTRIBUTES.SEPT_VE_DISABLE) ? TD_CTLS.PENDING_VE_DISABLE : 0n;
  tdcs.setU64(TDCS.TD_CTLS, (tdcs.u64(TDCS.TD_CTLS) & ~TD_CTLS.PENDING_VE_DISABLE) | pendingVeDisabled);
  if (!isXfamValid(platform, xfam)) return invalid(OPERAND.XFAM);
  tdcs.setU64(TDCS.XFAM, xfam);
  layOutXbuff(platform, td, xfam);
  if (maxVcpus === 0 || maxVcpus > MAX_VCPUS_PER_TD) return invalid(OPERAND.MAX_VCPUS);
  tdcs.setU32(TDCS.MAX_VCPUS, maxVcpus);
  if (l2Vms >= MAX_VMS) return invalid(OPERAND.NUM_L2_VMS);
  if (td.tdr.u32(TDR.NUM_TDCX) < TDCS_PAGES_MIN + l2Vms) return STATUS.TDX_TDCS_NOT_ALLOCATED;
  tdcs.setU16(TDCS.NUM_L2_VMS, l2Vms);
  if (!params.isZero(TD_PARAMS_AT.RESERVED_0)) return invalid(OPERAND.RDX);
  if (!areConfigFlagsValid(platform, configFlags)) return invalid(OPERAND.EXEC_CONTROLS);
  const wideGpa = hasAny(configFlags, CONFIG_FLAGS.GPAW);
  if (!areEptpControlsValid(platform, eptpControls, wideGpa)) return invalid(OPERAND.EPTP_CONTROLS);
  tdcs.setFlag(TDCS.GPAW, wideGpa);
  tdcs.setU64(TDCS.EPTP, eptpControls | td.septRoot());
  tdcs.setU64(TDCS.CONFIG_FLAGS, configFlags);
  if (tscFrequency < TSC_FREQUENCY_MIN || tscFrequency > TSC_FREQUENCY_MAX)
    return invalid(OPERAND.TSC_FREQUENCY);
  tdcs.setU16(TDCS.TSC_FREQUENCY, tscFrequency);
  if (lp.rdmsr(MODULE_MSR.TSC_ADJUST) !== platform.msrs.get(MODULE_MSR.TSC_ADJUST)) {
    return withOperand(STATUS.TDX_INCONSISTENT_MSR, MODULE_MSR.TSC_ADJUST);
  }
  scaleTsc(platform, lp, td, tscFrequency);
  if (!params.isZero(TD_PARAMS_AT.RESERVED_1)) return invalid(OPERAND.RDX);
  tdcs.setBytes(TDCS.MRCONFIGID, params.measurements);
  if ((params.msrConfigCtls & ~ARCH_CAPABILITIES_CONFIGURED) !== 0) return invalid(OPERAND.RDX);
  if (!params.isZero(TD_PARAMS_AT.RESERVED_2)) return invalid(OPERAND.RDX);
  return STATUS.TDX_SUCCESS;
}

/** A migratable TD can be neither debugged nor profiled, and a profiled one keeps no core silent. */
function areAttributesValid(
  { attributesFixed0, attributesFixed1 }: PlatformSnapshot,
  attributes: bigint,
): boolean {
  if (hasAny(attributes, ~attributesFixed0) || !hasAll(attributes, attributesFixed1)) return false;
  const migratable = hasAny(attributes, ATTRIBUTES.MIGRATABLE);
  if (migratable && hasAny(attributes, ATTRIBUTES.DEBUG | ATTRIBUTES.PERFMON)) return false;
  return !hasAll(attributes, ATTRIBUTES.PERFMON | ATTRIBUTES.ICSSD);
}

/** Some state components only make sense together. */
function isXfamValid({ xfamFixed0, xfamFixed1 }: PlatformSnapshot, xfam: bigint): boolean {
  if (hasAny(xfam, ~xfamFixed0) || !hasAll(xfam, xfamFixed1)) return false;
  if (hasAny(xfam, XFAM.AVX512) && !hasAll(xfam, XFAM.AVX512 | XFAM.AVX)) return false;
  return [XFAM.CET, XFAM.AMX].every((pair) => !hasAny(xfam, pair) || hasAll(xfam, pair));
}

function areConfigFlagsValid(
  { configFlagsFixed0, configFlagsFixed1 }: PlatformSnapshot,
  flags: bigint,
): boolean {
  if (hasAny(flags, ~configFlagsFixed0) || !hasAll(flags, configFlagsFixed1)) return false;
  return !hasAll(flags, CONFIG_FLAGS.MAXPA_VIRT | CONFIG_FLAGS.MAXGPA_VIRT);
}

/** Four or five levels, as the CPU can walk; a wide GPA needs five. */
function areEptpControlsValid(platform: PlatformSnapshot, controls: bigint, wideGpa: boolean): boolean {
  const levels = Number((controls >> EPTP_LEVELS_SHIFT) & EPTP_LEVELS_MASK);
  if (controls !== (EPTP_MEMORY_TYPE_WB | (BigInt(levels) << EPTP_LEVELS_SHIFT))) return false;
  const fiveLevels = hasAny(platform.msrs.get(MODULE_MSR.VMX_EPT_VPID_CAP)!, PML5_SUPPORTED);
  if (levels < SEPT_LEVEL.PML4 || levels > (fiveLevels ? SEPT_LEVEL.PML5 : SEPT_LEVEL.PML4)) return false;
  return !wideGpa || levels === SEPT_LEVEL.PML5;
}

/** Where each extended state component of the TD lies in its vCPUs' XBUFF. */
function layOutXbuff(platform: PlatformSnapshot, { tdcs }: TrustDomain, xfam: bigint): void {
  let offset = XSAVE_EXTENDED_REGION;
  for (let component = 2; component <= LAST_XFAM_BIT; component++) {
    if (!hasAny(xfam, 1n << BigInt(component))) continue;
    const [size, , flags] = platform.cpuid.get(cpuidKey(XSAVE_LEAF, component))!;
    if ((flags & XSAVE_ALIGN_64) !== 0) offset = Math.ceil(offset / 64) * 64;
    tdcs.setU32(TDCS.XBUFF_OFFSETS + 4 * component, offset);
    offset += size;
  }
  tdcs.setU32(TDCS.XBUFF_SIZE, offset);
}

/** The TD's TSC starts at zero and runs at its own frequency. */
function scaleTsc(
  platform: PlatformSnapshot,
  lp: LogicalProcessor,
  { tdcs }: TrustDomain,
  frequency: number,
): void {
  const multiplier = ((BigInt(frequency) * TSC_UNIT_HZ) << TSC_POINT) / BigInt(platform.tscHz);
  const elapsed = ((lp.rdtsc() * multiplier) >> TSC_POINT) & MASK_64;
  tdcs.setU64(TDCS.TSC_MULTIPLIER, multiplier);
  tdcs.setU64(TDCS.TSC_OFFSET, -elapsed & MASK_64);
}
