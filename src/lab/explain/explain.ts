/** Explains what a person copied from a host: statuses, leaves, metadata fields, errno values, log lines. */
import { InputError } from '../../abi/input-error.ts';
import { LEAVES } from '../../abi/leaves.ts';
import { errnoNamed, errnoNumbered, explainErrno } from './errno.ts';
import { explainExit } from './exit.ts';
import type { Explanation } from './explanation.ts';
import { explainFieldBits, fieldsExactly, fieldsNamed, fieldsNumbered, looksLikeField } from './field.ts';
import { explainLeaf, leavesNamed, leavesNumbered } from './leaf.ts';
import { explainLogLine } from './log-line.ts';
import {
  explainSeamldrStatus,
  explainStatus,
  explainStatusName,
  looksLikeStatus,
  NAMED_STATUSES,
} from './status.ts';
import { explainVmcallStatus } from './vmcall-status.ts';

/** A word or line with all its readings, the likeliest first; there is at least one. @public */
export interface Explained {
  readonly input: string;
  readonly readings: readonly Explanation[];
}

/**
 * Explains the words of a command line. Words without blanks that make one log line together are taken as that line,
 * all others by themselves; a word may hold several lines. Throws InputError for a word nobody knows.
 * @public
 */
export function explain(words: readonly string[]): readonly Explained[] {
  const joined = words.join(' ');
  const unquoted = words.length > 1 && words.every((word) => !/\s/.test(word));
  const line = unquoted ? explainLogLine(joined) : undefined;
  if (line !== undefined) return [{ input: joined, readings: [line] }];
  const asked = words.flatMap((word) => word.split(/\r?\n/)).map((word) => word.trim());
  const explained = asked
    .filter((word) => word !== '')
    .map((input) => ({ input, readings: readings(input) }));
  if (explained.length === 0)
    throw new InputError('nothing to explain: give a status, leaf, field, errno or log line');
  return explained;
}

function readings(word: string): readonly Explanation[] {
  const found = [...numberReadings(word), ...nameReadings(word)];
  if (found.length > 0) return found;
  const line = explainLogLine(word);
  if (line !== undefined) return [line];
  throw new InputError(
    `nothing is known about \`${shorten(word)}\`${suggestion(word)}: give a status (0xc000050500000000, ` +
      'TDX_OPERAND_BUSY), a leaf (0x22, TDH.SYS.RD), a metadata field (id or name), an errno (-28, ENOSPC) or a ' +
      'line of the kernel log of a TDX host',
  );
}

function nameReadings(word: string): Explanation[] {
  const upper = word.toUpperCase();
  const status = [upper, `TDX_${upper}`].find((name) => NAMED_STATUSES.has(name));
  const errno = errnoNamed(word);
  return [
    ...(status === undefined ? [] : [explainStatusName(status, NAMED_STATUSES.get(status)!)]),
    ...(errno === undefined ? [] : [explainErrno(errno)]),
    ...leavesNamed(word).map((leaf) => explainLeaf(leaf)),
    ...fieldsNamed(word),
  ];
}

/** A number as it may be meant: decimal, hexadecimal with 0x, or hexadecimal without it. */
function numberReadings(word: string): Explanation[] {
  if (/^-\d{1,19}$/.test(word)) return negativeReadings(BigInt(word));
  if (/^\d{1,20}$/.test(word)) {
    const value = BigInt(word);
    const found = value < 1n << 64n ? [...errnoReadings(value), ...valueReadings(value)] : [];
    // Sixteen decimal digits may be a hexadecimal status without 0x, such as 8000020000000000.
    const asHex = word.length === 16 ? BigInt(`0x${word}`) : 0n;
    return looksLikeStatus(asHex) && asHex !== 0n ? [...valueReadings(asHex), ...found] : found;
  }
  const hexadecimal = /^(?:0x)?([0-9a-f]{1,16})$/i.exec(word);
  return hexadecimal === null ? [] : valueReadings(BigInt(`0x${hexadecimal[1]}`));
}

/** A negative number is an errno, or a status that was printed as a signed number. */
function negativeReadings(value: bigint): Explanation[] {
  if (value > -4096n) return errnoReadings(value);
  return value >= -(1n << 63n) ? valueReadings(BigInt.asUintN(64, value)) : [];
}

function errnoReadings(value: bigint): Explanation[] {
  const errno = value > -4096n && value < 4096n ? errnoNumbered(Number(value)) : undefined;
  return errno === undefined ? [] : [explainErrno(errno)];
}

function valueReadings(value: bigint): Explanation[] {
  const statusLike = looksLikeStatus(value);
  // Fields of class 0 look like statuses: there only the exact identifier counts.
  const fields = statusLike ? fieldsExactly(value) : fieldsNumbered(value);
  const seamldr = explainSeamldrStatus(value);
  const leaves = leavesNumbered(value).map((leaf) =>
    explainLeaf(leaf, leaf.side === 'seamldr' ? 0 : Number(value >> 16n)),
  );
  const vmcall = explainVmcallStatus(value);
  const other = seamldr ?? vmcall;
  const status = statusLike && (value === 0n || value >= 1n << 32n) && other === undefined;
  const known = [
    ...fields,
    ...(status && fields.length === 0 ? [explainStatus(value)] : []),
    ...leaves,
    ...(seamldr === undefined ? [] : [seamldr]),
    ...(vmcall === undefined ? [] : [vmcall]),
  ];
  if (known.length > 0) return known;
  if (looksLikeField(value)) return [explainFieldBits(value)];
  return explainExit(value);
}

/** Names that hold the word, to put a person right who knows half of one. */
function suggestion(word: string): string {
  const wanted = word.toUpperCase().replaceAll('-', '_');
  if (wanted.length < 3) return '';
  const names = [...NAMED_STATUSES.keys(), ...LEAVES.map(({ name }) => name)];
  const near = names.filter((name) => name.includes(wanted)).slice(0, 3);
  return near.length === 0 ? '' : ` (did you mean ${near.join(', ')}?)`;
}

function shorten(word: string): string {
  return word.length <= 60 ? word : `${word.slice(0, 57)}...`;
}
