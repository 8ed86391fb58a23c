/** `tdxlab modules [RELEASE]` and `tdxlab modules diff A B`: prints the module releases known. */
import { InputError } from '../../abi/input-error.ts';
import {
  describeRelease,
  describeReleases,
  type ReleaseDescription,
} from '../../lab/modules/describe-release.ts';
import { diffReleases, type GainedAndLost, type ReleaseDifference } from '../../lab/modules/diff-releases.ts';
import { toJson } from '../format.ts';
import { type Io, style } from '../io.ts';
import { printTable, printWrapped } from '../table.ts';
import { EXIT, type Run } from '../verb.ts';

/** @internal */
export const run: Run = async (operands, options, io) => {
  const print = <T>(value: T, asText: (io: Io, value: T) => void): number => {
    if (options.json === true) io.out(toJson(value));
    else asText(io, value);
    return EXIT.done;
  };
  const [first, from, to] = operands;
  if (first === undefined) return print(describeReleases(), printOverview);
  if (first !== 'diff' && operands.length === 1) return print(describeRelease(first), printRelease);
  if (first === 'diff' && from !== undefined && to !== undefined && operands.length === 3) {
    return print(diffReleases(from, to), printDifference);
  }
  throw new InputError(
    'modules takes nothing, one release, or `diff` and two releases, as in `tdxlab modules diff 1.5.05 1.5.25`',
  );
};

/** 20240129 as `2024-01-29`. */
function day(date: number | null): string {
  return date === null ? '' : `${date}`.replace(/^(\d{4})(\d\d)(\d\d)$/, '$1-$2-$3');
}

function printOverview(io: Io, releases: readonly ReleaseDescription[]): void {
  printTable(
    io,
    [
      { heading: 'release' },
      { heading: 'build' },
      { heading: 'fields', align: 'right' },
      { heading: 'leaves', align: 'right' },
      { heading: 'new features' },
    ],
    releases.map((release, i) => {
      const before = releases[i - 1]?.features.map(({ name }) => name) ?? [];
      const fresh = release.features.map(({ name }) => name).filter((name) => !before.includes(name));
      return [
        release.version,
        [day(release.buildDate), release.buildNumber ?? ''].join(' ').trim(),
        `${release.fields.length}`,
        `${release.hostLeaves.length}`,
        fresh.join(', ') || '-',
      ];
    }),
  );
}

function printRelease(io: Io, release: ReleaseDescription): void {
  const built = [day(release.buildDate), release.buildNumber === null ? '' : `build ${release.buildNumber}`];
  io.out(style(io, 'bold', `TDX module ${release.version}  ${built.join(' ').trim()}`.trimEnd()));
  io.out();
  printTable(
    io,
    [{ heading: 'limit' }, { heading: 'value' }],
    release.limits.map(({ name, value }) => [name, `${value}`]),
  );
  io.out();
  io.out(`TDX_FEATURES0  0x${release.features0.toString(16)}`);
  if (release.features.length > 0) {
    io.out();
    printTable(
      io,
      [{ heading: 'bit', align: 'right' }, { heading: 'feature' }, { heading: 'meaning' }],
      release.features.map(({ bit, name, text, linux }) => [
        `${bit}`,
        name,
        [text, linux === undefined ? undefined : `Linux: ${linux}`].filter(Boolean).join('; '),
      ]),
    );
  }
  io.out();
  if (release.fields.length === 0) io.out('No metadata fields: TDH.SYS.INFO is all it offers.');
  else {
    printTable(
      io,
      [
        { heading: 'field id' },
        { heading: 'entries', align: 'right' },
        { heading: 'bytes', align: 'right' },
        { heading: 'since' },
        { heading: 'metadata field' },
      ],
      release.fields.map(({ id, fields, elements, elementBytes, since, name }) => [
        `0x${id.toString(16).padStart(16, '0')}`,
        elements === 1 ? `${fields}` : `${fields} x ${elements}`,
        `${elementBytes}`,
        since,
        name,
      ]),
    );
  }
  io.out();
  printWrapped(io, release.hostLeaves.join(' '), 'host leaves   ');
  printWrapped(io, release.guestLeaves.join(' '), 'guest leaves  ');
}

function printDifference(io: Io, difference: ReleaseDifference): void {
  const { from, to, limits } = difference;
  io.out(style(io, 'bold', `TDX module ${from} to ${to}`));
  const kinds: readonly (readonly [heading: string, change: GainedAndLost])[] = [
    ['features', difference.features],
    ['fields', difference.fields],
    ['host leaves', difference.hostLeaves],
    ['guest leaves', difference.guestLeaves],
  ];
  for (const [heading, { gained, lost }] of kinds) {
    if (gained.length > 0) printWrapped(io, gained.join(' '), `  ${`${heading} gained`.padEnd(LABEL_WIDTH)}`);
    if (lost.length > 0) printWrapped(io, lost.join(' '), `  ${`${heading} lost`.padEnd(LABEL_WIDTH)}`);
    if (gained.length + lost.length === 0) io.out(`  ${heading.padEnd(LABEL_WIDTH)}the same`);
  }
  if (limits.length === 0) {
    io.out(`  ${'limits'.padEnd(LABEL_WIDTH)}the same`);
    return;
  }
  io.out();
  printTable(
    io,
    [{ heading: 'limit' }, { heading: `${from} to ${to}` }],
    limits.map(({ name, from: old, to: now }) => [name, `${old} to ${now}`]),
  );
}

/** Widest label ("guest leaves gained") and a gap. */
const LABEL_WIDTH = 21;
