/** What several parts of a scenario are made of, each with what it says when it is something else. */
import * as v from 'valibot';
import { parseDuration, parseSize } from './units.ts';

function parsed(parse: (text: string) => number | undefined, expected: string) {
  return v.pipe(
    v.string(`must be ${expected}`),
    v.check((text) => parse(text) !== undefined, `must be ${expected}`),
    v.transform((text) => parse(text)!),
  );
}

/** Nanoseconds. @internal */
export const Duration = parsed(parseDuration, 'a time such as 90s, 10m or 2h30m');

/** Nanoseconds, at least one. @internal */
export const Period = v.pipe(Duration, v.minValue(1, 'must be longer than no time'));

/** Bytes, whole pages. @internal */
export const Size = v.pipe(
  parsed(parseSize, 'a size such as 4KiB, 512MiB or 64GiB'),
  v.check((bytes) => bytes % 4096 === 0, 'must be whole pages of 4KiB'),
);

/** Bytes, at least one page. @internal */
export const SomeSize = v.pipe(Size, v.minValue(1, 'must not be 0'));

/** @internal */
export function whole(least: number, most: number) {
  const text = `must be a whole number from ${least} to ${most}`;
  return v.pipe(v.number(text), v.integer(text), v.minValue(least, text), v.maxValue(most, text));
}

/** @internal */
export const Share = v.pipe(
  v.number('must be a number from 0 to 1'),
  v.minValue(0, 'must be a number from 0 to 1'),
  v.maxValue(1, 'must be a number from 0 to 1'),
);

/** What events and areas are called by. @internal */
export const Name = v.pipe(
  v.string('must be a name'),
  v.regex(/^[A-Za-z][\w.-]{0,63}$/, 'must be a name: a letter, then letters, digits, _ . or -, at most 64'),
);

/** A line for people. @internal */
export const Line = v.pipe(v.string('must be text'), v.nonEmpty('must not be empty'));

/** @internal */
export const Flag = v.boolean('must be true or false');

/** One of `words`. @internal */
export function word<const T extends readonly string[]>(words: T) {
  return v.picklist(words, `must be ${orList(words)}`);
}

/** @internal */
export function list<T extends v.GenericSchema>(item: T, most = 10_000) {
  return v.pipe(v.array(item, 'must be a list'), v.maxLength(most, `must have at most ${most} items`));
}

/** `a, b or c`. @internal */
export function orList(words: readonly string[]): string {
  if (words.length < 2) return words.join('');
  return `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

/** A physical address as hexadecimal text or as a number, of whole pages. @internal */
export const Address = v.pipe(
  v.union(
    [v.number(), v.pipe(v.string(), v.regex(/^0x[0-9a-fA-F]{1,13}$/), v.transform(Number))],
    'must be an address such as 0x4080000000',
  ),
  v.check((at) => Number.isInteger(at) && at >= 0 && at < 2 ** 52, 'must be an address below 2^52'),
  v.check((at) => at % 4096 === 0, 'must be the address of a 4 KiB page'),
);

/** A release of the module. @internal */
export const Release = v.pipe(
  v.string('must be a release such as "1.5.25"'),
  v.regex(/^\d+\.\d+(\.\d+)?$/, 'must be a release such as "1.5.25"'),
);
