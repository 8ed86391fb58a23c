/** TD_PARAMS: what the creator of a TD asks for in MNG.INIT (module facts 6, layout table). */
import { MEASUREMENT_BYTES } from './measurement.ts';

/** Bytes of TD_PARAMS, and its alignment. @public */
export const TD_PARAMS_BYTES = 1024;

/** Offsets in bytes; reserved parts as `[start, end)`. @public */
export const TD_PARAMS_AT = {
  ATTRIBUTES: 0,
  XFAM: 8,
  MAX_VCPUS: 16,
  NUM_L2_VMS: 18,
  MSR_CONFIG_CTLS: 19,
  RESERVED_0: [20, 24],
  EPTP_CONTROLS: 24,
  CONFIG_FLAGS: 32,
  TSC_FREQUENCY: 40,
  RESERVED_1: [42, 80],
  MEASUREMENTS: 80,
  ARCH_CAPABILITIES: 224,
  RESERVED_2: [232, 256],
  CPUID_CONFIG: 256,
} as const;

/** @public */
export interface TdParams {
  readonly attributes: bigint;
  readonly xfam: bigint;
  readonly maxVcpus: number;
  /** Memory type and levels, as in EPTP. */
  readonly eptpControls: bigint;
  readonly configFlags: bigint;
  /** In units of 25 MHz. */
  readonly tscFrequency: number;
  /** MRCONFIGID, MROWNER and MROWNERCONFIG, 48 bytes each. */
  readonly mrConfigId: Uint8Array;
  readonly mrOwner: Uint8Array;
  readonly mrOwnerConfig: Uint8Array;
  /** EAX, EBX, ECX, EDX of every leaf of CPUID_CONFIG_LEAVES, in its order. */
  readonly cpuid: readonly (readonly [number, number, number, number])[];
}

/** The bytes of TD_PARAMS, what is not named zero. @public */
export function encodeTdParams(params: TdParams): Uint8Array {
  const bytes = new Uint8Array(TD_PARAMS_BYTES);
  const view = new DataView(bytes.buffer);
  const at = TD_PARAMS_AT;
  view.setBigUint64(at.ATTRIBUTES, params.attributes, true);
  view.setBigUint64(at.XFAM, params.xfam, true);
  view.setUint16(at.MAX_VCPUS, params.maxVcpus, true);
  view.setBigUint64(at.EPTP_CONTROLS, params.eptpControls, true);
  view.setBigUint64(at.CONFIG_FLAGS, params.configFlags, true);
  view.setUint16(at.TSC_FREQUENCY, params.tscFrequency, true);
  [params.mrConfigId, params.mrOwner, params.mrOwnerConfig].forEach((value, i) => {
    bytes.set(value, at.MEASUREMENTS + MEASUREMENT_BYTES * i);
  });
  params.cpuid.forEach((quad, i) => {
    quad.forEach((value, j) => {
      view.setUint32(at.CPUID_CONFIG + 16 * i + 4 * j, value, true);
    });
  });
  return bytes;
}
