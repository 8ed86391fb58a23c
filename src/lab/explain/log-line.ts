/** Explains a line of a kernel log: finds its kind in the tables and explains leaf, status and errno in it. */
import { RECOVERY_TEXT } from './advice/advice.ts';
import { errnoDescribed, errnoNumbered, explainErrno } from './errno.ts';
import type { Explanation } from './explanation.ts';
import { explainLeaf, leavesNamed, leavesNumbered } from './leaf.ts';
import { BRING_UP_LINES } from './lines/bring-up-lines.ts';
import type { Groups, LogLine } from './lines/log-line.ts';
import { RUN_TIME_LINES } from './lines/run-time-lines.ts';
import { VMM_LINES } from './lines/vmm-lines.ts';
import { PAIRS, type Pair } from './pairs.ts';
import { explainSeamldrStatus, explainStatus, looksLikeStatus, NAMED_STATUSES } from './status.ts';

/** A leaf and a status side by side, as people type them from memory. */
const BARE_PAIR: LogLine = {
  name: 'a SEAMCALL failed',
  pattern:
    /^\(?(?<leaf>0x[0-9a-f]{1,6}|TDH[._][A-Z._]+)\)?[:,]? +\(?(?<status>(?:0x)?[0-9a-f]{16}|TDX_\w+)\)?$/i,
  says: 'What this leaf means by this status.',
  cases: [],
};
/** A status in a line of another kind; a bare number is no line. */
const ANY_STATUS: LogLine = {
  name: 'a line with a status',
  pattern: /\s(?<status>0x[89a-f][0-9a-f]{15})\b/i,
  says: 'No line that is known, but it holds a number with the form of a status.',
  cases: [],
};

/** Kinds of lines, the most telling first. @internal */
export const LOG_LINES: readonly LogLine[] = [
  ...BRING_UP_LINES,
  ...RUN_TIME_LINES,
  ...VMM_LINES,
  BARE_PAIR,
  ANY_STATUS,
];

/** Explains a log line, with any prefix; undefined when no table knows it. @internal */
export function explainLogLine(line: string): Explanation | undefined {
  for (const kind of LOG_LINES) {
    const match = kind.pattern.exec(line);
    if (match === null) continue;
    const groups: Groups = match.groups ?? {};
    const parts = partsOf(groups);
    if (kind === ANY_STATUS && parts.length === 0) continue;
    if (kind === BARE_PAIR && parts.length < 2) continue;
    const said: Explanation = {
      kind: 'log',
      name: kind.name,
      summary: kind.says.replace(/\{(\w+)\}/g, (_, name: string) => groups[name] ?? 'it'),
      facts: kind.facts?.(groups) ?? [],
      cases: kind.cases,
      data: {
        line,
        ...Object.fromEntries(Object.entries(groups).filter(([, value]) => value !== undefined)),
      },
      parts,
    };
    const pair = pairFor(parts);
    return pair === undefined ? said : withPair(said, pair);
  }
  return undefined;
}

function partsOf(groups: Groups): Explanation[] {
  const { leaf, status, seamldr, errno, error, ioctl } = groups;
  const parts: (Explanation | undefined)[] = [
    leaf === undefined ? undefined : leafPart(leaf),
    status === undefined ? undefined : statusPart(status),
    seamldr === undefined ? undefined : explainSeamldrStatus(BigInt(seamldr)),
    errno === undefined ? undefined : errnoPart(Number(errno)),
    error === undefined ? undefined : describedErrnoPart(error, ioctl),
  ];
  return parts.filter((part) => part !== undefined);
}

function leafPart(text: string): Explanation | undefined {
  if (!/^(?:0x[0-9a-f]+|\d+)$/i.test(text)) {
    const named = leavesNamed(text)[0];
    return named === undefined ? undefined : explainLeaf(named);
  }
  const rax = BigInt(text);
  const leaf = leavesNumbered(rax).find(({ side }) => side !== 'guest');
  return leaf === undefined ? undefined : explainLeaf(leaf, leaf.side === 'host' ? Number(rax >> 16n) : 0);
}

function statusPart(text: string): Explanation | undefined {
  const named = NAMED_STATUSES.get(text.toUpperCase());
  const digits = /^0x/i.test(text) ? text : `0x${text}`;
  if (named === undefined && !/^0x[0-9a-f]{1,16}$/i.test(digits)) return undefined;
  const value = named ?? BigInt(digits);
  return looksLikeStatus(value) ? explainStatus(value) : undefined;
}

function errnoPart(number: number): Explanation | undefined {
  const errno = errnoNumbered(number);
  return errno === undefined ? undefined : explainErrno(errno, 'bring-up');
}

function describedErrnoPart(text: string, ioctl: string | undefined): Explanation | undefined {
  const errno = errnoDescribed(text);
  return errno === undefined ? undefined : explainErrno(errno, ioctl);
}

/** What a leaf and a status of one line say together. */
function pairFor(parts: readonly Explanation[]): Pair | undefined {
  const leaf = parts.find(({ kind }) => kind === 'leaf')?.name;
  const status = parts.find(({ kind }) => kind === 'status');
  if (leaf === undefined || status === undefined) return undefined;
  const detail = status.data.detail;
  return PAIRS.find(
    (row) =>
      row.leaf === leaf && row.status === status.name && (row.detail === undefined || row.detail === detail),
  );
}

/** Puts a pair in the place of what line and status say in general. */
function withPair(said: Explanation, pair: Pair): Explanation {
  const { leaf, status, cause, remedy, recovery } = pair;
  const parts = said.parts.map((part) =>
    part.kind === 'status'
      ? { ...part, cases: [], facts: part.facts.filter(({ label }) => label !== 'recovery') }
      : part,
  );
  return {
    ...said,
    facts: [...said.facts, { label: 'recovery', text: RECOVERY_TEXT[recovery] }],
    cases: [{ where: `${leaf} answered ${status}`, cause, remedy }],
    data: { ...said.data, recovery },
    parts,
  };
}
