/** What differs between releases of the TDX module, as data. */

/** One release. @public */
export interface ModuleRelease {
  /** "1.5.25". */
  readonly version: string;
  readonly major: number;
  readonly minor: number;
  readonly update: number;
  /** Day of the build as a decimal YYYYMMDD. */
  readonly buildDate: number;
  readonly buildNumber: number;
  /** TDX_FEATURES0. */
  readonly features0: bigint;
  readonly maxTdmrs: number;
  readonly maxReservedPerTdmr: number;
  readonly pamtEntrySize: number;
}

const REFERENCE: ModuleRelease = {
  version: '1.5.25',
  major: 1,
  minor: 5,
  update: 25,
  buildDate: 20260610,
  buildNumber: 0,
  features0: 0xd132_6f3f_0fbfn,
  maxTdmrs: 64,
  maxReservedPerTdmr: 16,
  pamtEntrySize: 16,
};

/** Every release known, oldest first. @public */
export const RELEASES: readonly ModuleRelease[] = [REFERENCE];

/** The release called `version`, or undefined. @public */
export function findRelease(version: string): ModuleRelease | undefined {
  return RELEASES.find((release) => release.version === version);
}
