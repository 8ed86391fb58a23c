/** Lines of the kernel's TDX support, in the wordings of the series since 2022. */
import { formatRange, isAligned, PAGE_4K } from '../abi/address.ts';
import { addFact, addNote, type Evidence, inputErrorAt, type Place } from './evidence.ts';
import type { LogRule } from './log-rule.ts';
import { parseCount, parseHalfOpenRange } from './parse-number.ts';

/** TME carries at most 15 KeyID bits (IA32_TME_CAPABILITY 35:32). */
const MAX_KEY_ID = 2 ** 15;
/** Module version parts and PAMT sizes: far above any real one, and exact in a number. */
const MAX_FIELD = 2 ** 32 - 1;
const MAX_PAMT_UNITS = 2 ** 42;
/** SEAMCALL errors kept; a failing host repeats the same one. */
const MAX_SEAMCALL_ERRORS = 100;

function takeSeamcallError(evidence: Evidence, match: readonly string[]): void {
  const error = { leaf: Number(match[1]), status: BigInt(match[2]!) };
  if (evidence.seamcallErrors.length < MAX_SEAMCALL_ERRORS) evidence.seamcallErrors.push(error);
  evidence.failure ??= { text: match[0]! };
}

function takeKeyIds(evidence: Evidence, match: readonly string[], place: Place): void {
  const start = parseCount(match[1]!, MAX_KEY_ID, 'as a KeyID', place);
  const end = parseCount(match[2]!, MAX_KEY_ID, 'as a KeyID', place);
  const range = `private KeyID range [${start}, ${end})`;
  if (end < start) throw inputErrorAt(place, `${range} is reversed`);
  if (start === 0) throw inputErrorAt(place, `${range} starts with KeyID 0, which is never private`);
  evidence.keyIds = { start, end, place };
}

function takeCmr(evidence: Evidence, match: RegExpExecArray, place: Place): void {
  const range = parseHalfOpenRange(match[1]!, match[2]!, place);
  if (range.start === range.end) {
    addNote(evidence, place, 'an empty CMR entry is left out');
    return;
  }
  if (!isAligned(range.start, PAGE_4K) || !isAligned(range.end, PAGE_4K)) {
    throw inputErrorAt(place, `CMR ${formatRange(range)} is not made of whole 4 KiB pages`);
  }
  addFact(evidence.cmrs, { ...range, place }, place);
}

function takeModule(evidence: Evidence, match: RegExpExecArray, place: Place): void {
  const field = (at: number): number => parseCount(match[at]!, MAX_FIELD, 'as a version', place);
  evidence.module = { major: field(1), minor: field(2), buildDate: field(3), buildNumber: field(4) };
}

function takeFailure(evidence: Evidence, match: RegExpExecArray, place: Place): void {
  const text = match[1]!.replace(/^initialization failed: /, '').trim();
  const numbers = /\[0x([0-9a-f]+), ?0x([0-9a-f]+)\)/.exec(text);
  const range = numbers === null ? undefined : parseHalfOpenRange(numbers[1]!, numbers[2]!, place);
  evidence.failure = { ...evidence.failure, text, ...(range === undefined ? {} : { range }) };
  evidence.initialized = false;
  if (/not loaded/.test(text)) evidence.moduleMissing = true;
  if (/hibernation/i.test(text)) evidence.hibernationDisabled = false;
}

/** @internal */
export const TDX_RULES: readonly LogRule[] = [
  {
    word: 'SEAMCALL',
    pattern: /SEAMCALL \((0x[0-9a-f]{1,16}|\d{1,10})\) failed: (0x[0-9a-f]{1,16})/,
    take: takeSeamcallError,
  },
  {
    word: 'SEAMCALL failed: CPU',
    pattern: /SEAMCALL failed: CPU \d+: leaf (\d{1,10}), error (0x[0-9a-f]{1,16})/,
    take: takeSeamcallError,
  },
  {
    word: 'KeyID: start',
    pattern: /private KeyID: start (\d+), nr (\d+)/,
    take(evidence, match, place) {
      const end = String(Number(match[1]) + Number(match[2]));
      takeKeyIds(evidence, [match[0], match[1]!, end], place);
    },
  },
  { word: 'KeyID range', pattern: /KeyID range:? \[(\d+), ?(\d+)\)/, take: takeKeyIds },
  { word: 'CMR', pattern: /tdx: CMR(?: ?\[?\d+\]?)?:? \[0x([0-9a-f]+), ?0x([0-9a-f]+)\)/, take: takeCmr },
  {
    word: 'major_version',
    pattern: /major_version (\d+), minor_version (\d+), build_date (\d+), build_num (\d+)/,
    take: takeModule,
  },
  {
    word: 'odule version',
    pattern: /[Mm]odule version:? (\d+)\.(\d+)\.(\d+)/,
    take(evidence, match, place) {
      const field = (at: number): number => parseCount(match[at]!, MAX_FIELD, 'as a version', place);
      evidence.module = { major: field(1), minor: field(2), update: field(3) };
    },
  },
  {
    word: 'for PAMT',
    pattern: /\b(\d+) (KBs?|pages) allocated for PAMT/,
    take(evidence, match, place) {
      const kibPerUnit = match[2] === 'pages' ? 4 : 1;
      evidence.pamtKb = parseCount(match[1]!, MAX_PAMT_UNITS, 'units of PAMT', place) * kibPerUnit;
    },
  },
  {
    word: 'initialized',
    pattern: /tdx: (?:TDX[- ])?[Mm]odule initialized/,
    take(evidence) {
      evidence.initialized = true;
      delete evidence.failure;
    },
  },
  {
    word: 'initialization failed (',
    pattern: /tdx: ((?:TDX[- ])?[Mm]odule initialization failed) \((-\d{1,4})\)/,
    take(evidence, match) {
      const text = evidence.failure?.text ?? match[1]!;
      evidence.failure = { ...evidence.failure, text, errno: Number(match[2]) };
      evidence.initialized = false;
    },
  },
  {
    word: 'tdx: ',
    // Anchored at the first `tdx: `: a line that repeats it many times would else be searched from each.
    pattern:
      /^(?:(?!tdx: ).)*tdx: (.*(?:initialization failed: |exhausted|not loaded|not supported|is required|too few|Failed to initialize|clobber).*)/,
    take: takeFailure,
  },
  {
    word: 'TDMR',
    pattern: /tdx: TDMR(?: ?\[?\d+\]?)?:? \[0x([0-9a-f]+), ?0x([0-9a-f]+)\)(?:.*?(\d{1,4}) reserved)?/,
    take(evidence, match, place) {
      const range = parseHalfOpenRange(match[1]!, match[2]!, place);
      const reserved = match[3] === undefined ? {} : { reservedAreas: Number(match[3]) };
      addFact(evidence.tdmrs, { ...range, ...reserved }, place);
    },
  },
  {
    word: 'ACPI S3',
    pattern: /tdx: Disable ACPI S3/,
    // The kernel prints this after it found hibernation off.
    take: (evidence) => {
      evidence.hibernationDisabled = true;
    },
  },
  {
    word: 'Guest detected',
    pattern: /tdx: Guest detected/,
    take: (evidence, _, place) =>
      addNote(evidence, place, 'this is the log of a guest in a TD, not of a host'),
  },
];
