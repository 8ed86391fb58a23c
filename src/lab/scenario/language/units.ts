/** Times and sizes as people write them in a scenario: `2h30m`, `64GiB`. */
import { GIB, KIB, MIB, TIB } from '../../../abi/address.ts';

/** Nanoseconds of each unit of time. */
const TIME_UNITS: readonly (readonly [unit: string, ns: number])[] = [
  ['d', 86_400e9],
  ['h', 3600e9],
  ['m', 60e9],
  ['s', 1e9],
  ['ms', 1e6],
  ['us', 1e3],
  ['ns', 1],
];

const SIZE_UNITS: ReadonlyMap<string, number> = new Map([
  ['KiB', KIB],
  ['MiB', MIB],
  ['GiB', GIB],
  ['TiB', TIB],
]);

/** Longest time of a scenario: about 104 days in nanoseconds are exact in a `number`. */
const MOST_NS = Number.MAX_SAFE_INTEGER;
/** Physical addresses have at most 52 bits. */
const MOST_BYTES = 2 ** 52;

/** Nanoseconds of a text such as `2h30m` or `1.5s`; undefined for anything else, and beyond 104 days. @public */
export function parseDuration(text: string): number | undefined {
  if (!/^(?:\d+(?:\.\d+)?(?:ms|us|ns|d|h|m|s))+$/.test(text)) return undefined;
  let ns = 0;
  let before = -1;
  for (const [, count = '', unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|us|ns|d|h|m|s)/g)) {
    const index = TIME_UNITS.findIndex(([name]) => name === unit);
    if (index <= before) return undefined;
    before = index;
    ns += Number(count) * TIME_UNITS[index]![1];
  }
  return ns <= MOST_NS ? Math.round(ns) : undefined;
}

/** Bytes of a text such as `64GiB`; undefined for anything else, for parts of bytes and beyond 52 bits. @public */
export function parseSize(text: string): number | undefined {
  const { count = '', unit = '' } = /^(?<count>\d+(?:\.\d+)?)(?<unit>[KMGT]iB)$/.exec(text)?.groups ?? {};
  const bytes = Number(count) * (SIZE_UNITS.get(unit) ?? Number.NaN);
  return count !== '' && Number.isInteger(bytes) && bytes <= MOST_BYTES ? bytes : undefined;
}

/** A time for people, in its two largest units: `2h 30m`, `1.25ms`. @public */
export function formatDuration(ns: number): string {
  if (ns < 60e9) {
    const [unit, size] = TIME_UNITS.slice(3).find(([, each]) => ns >= each) ?? ['s', 1e9];
    return `${Number((ns / size).toFixed(2))}${unit}`;
  }
  const seconds = Math.round(ns / 1e9);
  const parts: string[] = [];
  let rest = seconds;
  for (const [unit, each] of TIME_UNITS.slice(0, 4)) {
    const count = Math.floor(rest / (each / 1e9));
    rest -= count * (each / 1e9);
    if (count > 0) parts.push(`${count}${unit}`);
  }
  return parts.slice(0, 2).join(' ');
}

/** A time as scenarios write it, nothing lost: `2h30m5ns`. @public */
export function exactDuration(ns: number): string {
  let rest = ns;
  let text = '';
  for (const [unit, size] of TIME_UNITS) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0) text += `${count}${unit}`;
  }
  return text === '' ? '0s' : text;
}

/** Bytes as scenarios write them, in the largest unit of which they are a whole number: `512MiB`. @public */
export function exactSize(bytes: number): string {
  const [unit, size] = [...SIZE_UNITS].findLast(([, each]) => bytes % each === 0) ?? ['KiB', KIB];
  return `${bytes / size}${unit}`;
}
