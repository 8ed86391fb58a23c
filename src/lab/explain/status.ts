/** Explains a status word. */
import { hex } from '../../abi/address.ts';
import { SEAMLDR_STATUS } from '../../abi/seamldr-status.ts';
import { type DecodedStatus, decodeStatus, SW_STATUS } from '../../abi/status.ts';
import { STATUS, STATUS_CLASSES } from '../../abi/status-codes.ts';
import { RECOVERY_TEXT } from './advice/advice.ts';
import type { Explanation, Fact } from './explanation.ts';
import { adviceFor } from './status-advice.ts';
import { type StatusDetail, statusDetail } from './status-detail.ts';

const CLASS_AND_CODE = 0x0000_ffff_0000_0000n;
/** Bits 59:48 are zero in every status. */
const RESERVED = 0x0fff_0000_0000_0000n;

const SEAMLDR_NAMES = new Map<bigint, string>(
  Object.entries(SEAMLDR_STATUS).map(([name, value]) => [value, name]),
);
const NAMES_BY_CODE = new Map<bigint, string>(
  Object.entries(STATUS).map(([name, value]) => [value & CLASS_AND_CODE, name]),
);

/** Every status that has a name: the module's, the wrapper's and P-SEAMLDR's. @internal */
export const NAMED_STATUSES: ReadonlyMap<string, bigint> = new Map<string, bigint>([
  ...Object.entries(STATUS),
  ...Object.entries(SW_STATUS),
  ...Object.entries(SEAMLDR_STATUS),
]);

/** True when `value` can be a status: a known one, or one with error bits and the reserved bits clear. @internal */
export function looksLikeStatus(value: bigint): boolean {
  if (decodeStatus(value).name !== undefined) return true;
  return (value & RESERVED) === 0n && value >> 60n !== 0n;
}

/** Statuses that a TD exit may change the top bits of, found by class and code alone; success has none to change. */
function nameOf(status: DecodedStatus): string | undefined {
  if (status.name !== undefined) return status.name;
  const code = status.value & CLASS_AND_CODE;
  if (status.value >> 60n === 0n || code === 0n || status.className === 'SOFTWARE') return undefined;
  return NAMES_BY_CODE.get(code);
}

/** P-SEAMLDR's status called by this number, where it has one. @internal */
export function explainSeamldrStatus(value: bigint): Explanation | undefined {
  const name = SEAMLDR_NAMES.get(value);
  if (name === undefined) return undefined;
  const advice = adviceFor(value, name);
  return {
    kind: 'status',
    name,
    number: padded(value),
    summary: advice.meaning,
    facts: [
      { label: 'from', text: 'a P-SEAMLDR leaf (SEAMLDR.INFO, SEAMLDR.INSTALL), not the module' },
      { label: 'recovery', text: RECOVERY_TEXT[advice.recovery] },
    ],
    cases: [{ cause: advice.cause, remedy: advice.remedy }],
    data: { value, from: 'seamldr', recovery: advice.recovery },
    parts: [],
  };
}

/** Explains a status by its name alone: nothing is said of a detail. @internal */
export function explainStatusName(name: string, value: bigint): Explanation {
  const { facts, ...rest } = explainSeamldrStatus(value) ?? explainStatus(value);
  return { ...rest, name, facts: facts.filter(({ label }) => label !== 'detail') };
}

/** Explains any 64-bit value as a status of the module or of the kernel's SEAMCALL wrapper. @internal */
export function explainStatus(value: bigint): Explanation {
  const status = decodeStatus(value);
  const name = nameOf(status);
  const advice = adviceFor(value, name);
  const detail = status.className === 'SOFTWARE' ? undefined : statusDetail({ ...status, name });
  return {
    kind: 'status',
    name: name ?? `unnamed status of class ${status.className ?? status.classCode}`,
    number: padded(value),
    summary: advice.meaning,
    facts: factsOf(status, name, detail, advice.recovery),
    cases: [{ cause: advice.cause, remedy: advice.remedy }],
    data: {
      value,
      class: status.className ?? null,
      classCode: status.classCode,
      error: status.error,
      nonRecoverable: status.nonRecoverable,
      fatal: status.fatal,
      hostRecoverabilityHint: status.hostRecoverabilityHint,
      detail: status.detail,
      ...detail?.data,
      recovery: advice.recovery,
    },
    parts: [],
  };
}

function factsOf(
  status: DecodedStatus,
  name: string | undefined,
  detail: StatusDetail | undefined,
  recovery: keyof typeof RECOVERY_TEXT,
): Fact[] {
  const facts: Fact[] = [];
  const className = STATUS_CLASSES[status.classCode] ?? status.className ?? 'not in the table';
  facts.push({ label: 'class', text: `${hex(status.classCode)} ${className}` });
  facts.push({ label: 'bits', text: bitsInWords(status) });
  if (name !== undefined && status.name === undefined) {
    const usual = NAMED_STATUSES.get(name) ?? 0n;
    facts.push({ label: 'note', text: `the ABI's table has other top bits for it: ${padded(usual)}` });
  }
  if (detail !== undefined) facts.push({ label: 'detail', text: detail.text });
  facts.push({ label: 'recovery', text: RECOVERY_TEXT[recovery] });
  return facts;
}

function bitsInWords(status: DecodedStatus): string {
  const set = [
    status.error ? '63 error' : '',
    status.nonRecoverable ? '62 non-recoverable: repeating the same call does not help' : '',
    status.fatal ? '61 fatal to the TD' : '',
    status.hostRecoverabilityHint ? '60 the host can recover it' : '',
  ].filter((text) => text !== '');
  return set.length === 0 ? 'none: a success' : set.join(', ');
}

/** All 16 digits, as kernel logs print a status. */
function padded(value: bigint): string {
  return `0x${value.toString(16).padStart(16, '0')}`;
}
