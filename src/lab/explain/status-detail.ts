/**
 * What bits 31:0 of a status say. Which of several meanings they have depends on the status (module facts 1 and 3,
 * status table per leaf).
 */
import { hex } from '../../abi/address.ts';
import { OP_STATES } from '../../abi/op-states.ts';
import type { DecodedStatus } from '../../abi/status.ts';
import { VCPU_STATE } from '../../module/td/layout.ts';
import { EXIT_REASONS } from './exit-reasons.ts';
import { MSR_NAMES } from './msr-names.ts';
import { operandInWords } from './operand-meanings.ts';

/** The detail in words, with the same as data. @internal */
export interface StatusDetail {
  readonly text: string;
  readonly data: Readonly<Record<string, unknown>>;
}

type Reader = (detail: number, status: DecodedStatus) => StatusDetail;

const PAMT_LEVELS = ['4 KiB', '2 MiB', '1 GiB'];
const LEVELS = ['4 KiB', '2 MiB', '1 GiB', '512 GiB', '256 TiB'];
const VCPU_STATE_NAMES = new Map<number, string>(
  Object.entries(VCPU_STATE).map(([name, value]) => [value, name]),
);

/** Info byte `i` of the detail, byte 0 lowest. */
const byte = (detail: number, i: number): number => (detail >>> (8 * i)) & 0xff;

const operand: Reader = (detail, status) => {
  if (status.operand !== undefined) {
    return {
      text: `operand ${detail}: ${operandInWords(status.operand)}`,
      data: { operand: status.operand, operandId: detail },
    };
  }
  return { text: `operand ${detail}, which has no name in the ABI's table`, data: { operandId: detail } };
};

const tdmr: Reader = (detail) => ({
  text: `TDMR number ${byte(detail, 0)} of the list, counted from 0`,
  data: { tdmr: byte(detail, 0) },
});

const pamt: Reader = (detail) => {
  const level = PAMT_LEVELS[byte(detail, 1)] ?? `level ${byte(detail, 1)}`;
  return {
    text: `TDMR number ${byte(detail, 0)}, its PAMT for ${level} pages`,
    data: { tdmr: byte(detail, 0), pamtLevel: byte(detail, 1) },
  };
};

const pamtOverlap: Reader = (detail, status) => ({
  text: `${pamt(detail, status).text}, overlaps TDMR number ${byte(detail, 2)} or its PAMT`,
  data: { ...pamt(detail, status).data, otherTdmr: byte(detail, 2) },
});

const reservedArea: Reader = (detail) => ({
  text: `TDMR number ${byte(detail, 0)}, its reserved area number ${byte(detail, 1)}`,
  data: { tdmr: byte(detail, 0), reservedArea: byte(detail, 1) },
});

const smrr: Reader = (detail) => ({
  text: byte(detail, 0) === 0 ? 'SMRR, the first SMM range' : `SMRR${byte(detail, 0) + 1}`,
  data: { smrr: byte(detail, 0) },
});

const smrrAndCmr: Reader = (detail, status) => ({
  text: `${smrr(detail, status).text}, overlaps CMR number ${byte(detail, 1)}`,
  data: { smrr: byte(detail, 0), cmr: byte(detail, 1) },
});

const msr: Reader = (detail) => {
  const name = MSR_NAMES[detail];
  return {
    text: `MSR ${hex(detail)}${name === undefined ? '' : ` ${name}`}`,
    data: { msr: detail, ...(name === undefined ? {} : { msrName: name }) },
  };
};

const cpuidLeaf: Reader = (detail) => ({ text: `CPUID leaf ${hex(detail)}`, data: { cpuidLeaf: detail } });

const opState: Reader = (detail) => {
  const name = OP_STATES[detail];
  return {
    text: `the TD is in state ${detail}${name === undefined ? '' : ` ${name}`}`,
    data: { opState: detail, ...(name === undefined ? {} : { opStateName: name }) },
  };
};

const vcpuState: Reader = (detail) => {
  const name = VCPU_STATE_NAMES.get(detail);
  return {
    text: `the VCPU is in state ${detail}${name === undefined ? '' : ` ${name}`}`,
    data: { vcpuState: detail, ...(name === undefined ? {} : { vcpuStateName: name }) },
  };
};

const septLevel: Reader = (detail) => ({
  text: `level ${detail}${LEVELS[detail] === undefined ? '' : `: ${LEVELS[detail]}`}`,
  data: { level: detail },
});

const l2Level: Reader = (detail) => ({
  text: `L2 VM ${detail >>> 16}, level ${detail & 0xffff}`,
  data: { vm: detail >>> 16, level: detail & 0xffff },
});

const exitReason: Reader = (detail) => {
  const reason = detail & 0xffff;
  const words = EXIT_REASONS[reason] ?? 'no exit the architecture names';
  return { text: `VMX exit reason ${reason}: ${words}`, data: { exitReason: reason } };
};

const counted =
  (label: string, key: string): Reader =>
  (detail) => ({ text: `${label} ${detail}`, data: { [key]: detail } });

const compatibility: Reader = (detail) => ({
  text: `${detail >>> 16} TDs are ${(detail & 1) === 0 ? 'being built' : 'in an interrupted migration step'}`,
  data: { tds: detail >>> 16, kind: detail & 1 },
});

const BY_NAME: Readonly<Record<string, Reader>> = {
  TDX_INVALID_TDMR: tdmr,
  TDX_NON_ORDERED_TDMR: tdmr,
  TDX_TDMR_OUTSIDE_CMRS: tdmr,
  TDX_INVALID_PAMT: pamt,
  TDX_PAMT_OUTSIDE_CMRS: pamt,
  TDX_PAMT_OVERLAP: pamtOverlap,
  TDX_INVALID_RESERVED_IN_TDMR: reservedArea,
  TDX_NON_ORDERED_RESERVED_IN_TDMR: reservedArea,
  TDX_SMRR_NOT_LOCKED: smrr,
  TDX_INVALID_SMRR_CONFIGURATION: smrr,
  TDX_SMRR_OVERLAPS_CMR: smrrAndCmr,
  TDX_INCONSISTENT_MSR: msr,
  TDX_INCORRECT_MSR_VALUE: msr,
  TDX_CPUID_LEAF_NOT_SUPPORTED: cpuidLeaf,
  TDX_OP_STATE_INCORRECT: opState,
  TDX_VCPU_STATE_INCORRECT: vcpuState,
  TDX_X2APIC_ID_NOT_UNIQUE: counted('x2APIC id', 'x2apicId'),
  TDX_INVALID_PKG_ID: counted('package', 'package'),
  TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED: counted('the module handles at most this many KeyIDs:', 'maxKeyIds'),
  TDX_PAMT_PAGE_NOT_EMPTY: counted('4 KiB page number within the 2 MiB range:', 'page'),
  TDX_INTERRUPTED_PAMT: counted('entry', 'entry'),
  TDX_EVENT_FILTER_INVALID: counted('filter', 'filter'),
  TDX_EVENT_FILTER_ORDER_INVALID: counted('filter', 'filter'),
  TDX_UPDATE_COMPATIBILITY_SENSITIVE: compatibility,
  TDX_PAGE_ALREADY_ACCEPTED: septLevel,
  TDX_PAGE_SIZE_MISMATCH: septLevel,
  TDX_L2_SEPT_WALK_FAILED: l2Level,
  TDX_L2_SEPT_ENTRY_NOT_FREE: l2Level,
};

/** Classes whose detail is an operand id: OPERAND, RESOURCE_BUSY, PAGE_METADATA, SEPT. */
const OPERAND_CLASSES: ReadonlySet<number> = new Set([1, 2, 3, 0xb]);

/** The meaning of a status's low 32 bits; undefined when they mean nothing. @internal */
export function statusDetail(status: DecodedStatus): StatusDetail | undefined {
  const { name, detail, classCode } = status;
  const reader = name === undefined ? undefined : BY_NAME[name];
  if (reader !== undefined) return reader(detail, status);
  // Operand 0 is RAX, which only an invalid leaf number concerns; elsewhere 0 means that nothing is named.
  if (detail === 0 && name !== 'TDX_OPERAND_INVALID') return undefined;
  if (OPERAND_CLASSES.has(classCode)) return operand(detail, status);
  if (classCode === 0 || classCode === 0x11) return exitReason(detail, status);
  return status.operand === undefined
    ? { text: `detail ${hex(detail)}`, data: { detail } }
    : operand(detail, status);
}
