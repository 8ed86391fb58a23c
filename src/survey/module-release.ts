/** Which release of the TDX module a log is about. */
import type { Evidence } from './evidence.ts';
import type { Remarks } from './remarks.ts';
import type { Observed } from './survey.ts';

type Version = NonNullable<Observed['module']>;

/** Where no log tells: the release the model is exact for. */
const ASSUMED_RELEASE = '1.5.25';

/**
 * Releases the model knows, newest first, by what kernels print: `major.minor.update`, or before Linux 7 the day
 * of the build. Builds 595 (2023-10-08) and 698 (2024-01-29) are of 1.5.05 and 784 (2024-07-25) is later; days
 * are given to the releases that were current for long, and a build counts to the last one before it.
 */
const RELEASES: readonly {
  readonly release: string;
  readonly major: number;
  readonly minor: number;
  readonly update: number;
  readonly fromDate?: number;
}[] = [
  { release: '2.0.08', major: 2, minor: 0, update: 8, fromDate: 0 },
  { release: '1.5.25', major: 1, minor: 5, update: 25, fromDate: 20260101 },
  { release: '1.5.24', major: 1, minor: 5, update: 24 },
  { release: '1.5.20', major: 1, minor: 5, update: 20 },
  { release: '1.5.16', major: 1, minor: 5, update: 16, fromDate: 20250101 },
  { release: '1.5.13', major: 1, minor: 5, update: 13 },
  { release: '1.5.09', major: 1, minor: 5, update: 9 },
  { release: '1.5.08', major: 1, minor: 5, update: 8 },
  { release: '1.5.06', major: 1, minor: 5, update: 6, fromDate: 20240301 },
  { release: '1.5.05', major: 1, minor: 5, update: 5, fromDate: 0 },
  { release: '1.5.01', major: 1, minor: 5, update: 1 },
  { release: '1.0', major: 1, minor: 0, update: 0, fromDate: 0 },
];

/** The modelled release nearest below the observed one; null where the kernel found no module. @internal */
export function chooseModule(evidence: readonly Evidence[], remarks: Remarks): string | null {
  const last = evidence.findLast((one) => one.module !== undefined || one.moduleMissing === true);
  if (last?.module === undefined) {
    if (last?.moduleMissing === true) return null;
    remarks.assume(`no module version is shown: release ${ASSUMED_RELEASE} is assumed`);
    return ASSUMED_RELEASE;
  }
  const release = releaseOf(last.module);
  if (release !== describe(last.module)) {
    remarks.at(
      { source: last.source },
      `the module, ${describe(last.module)}, is taken as release ${release}`,
    );
  }
  return release;
}

/** The newest release that is not above the version; the oldest of its line where it is below all. */
function releaseOf({ major, minor, update, buildDate }: Version): string {
  const line = RELEASES.filter((row) => row.major === major && row.minor === minor);
  const row = line.find(({ update: from, fromDate }) =>
    update === undefined ? fromDate !== undefined && (buildDate ?? 0) >= fromDate : update >= from,
  );
  return (row ?? line.at(-1))?.release ?? ASSUMED_RELEASE;
}

function describe({ major, minor, update, buildDate, buildNumber }: Version): string {
  if (update !== undefined) return `${major}.${minor}.${String(update).padStart(2, '0')}`;
  return `${major}.${minor} build ${buildNumber} of ${buildDate}`;
}
