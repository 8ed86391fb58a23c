/** What changes from one release of the TDX module to another. */
import { describeRelease, type ReleaseDescription } from './describe-release.ts';

/** Names that only one of two releases has. @public */
export interface GainedAndLost {
  readonly gained: readonly string[];
  readonly lost: readonly string[];
}

/** A limit with different values. @public */
export interface ChangedLimit {
  readonly name: string;
  readonly from: number | string;
  readonly to: number | string;
}

/** @public */
export interface ReleaseDifference {
  readonly from: string;
  readonly to: string;
  readonly features: GainedAndLost;
  readonly fields: GainedAndLost;
  readonly hostLeaves: GainedAndLost;
  readonly guestLeaves: GainedAndLost;
  readonly limits: readonly ChangedLimit[];
}

function gainedAndLost(from: readonly string[], to: readonly string[]): GainedAndLost {
  return {
    gained: to.filter((name) => !from.includes(name)),
    lost: from.filter((name) => !to.includes(name)),
  };
}

const names = (list: readonly { readonly name: string }[]): string[] => list.map(({ name }) => name);

function changedLimits(from: ReleaseDescription, to: ReleaseDescription): ChangedLimit[] {
  return from.limits.flatMap(({ name, value }) => {
    const other = to.limits.find((limit) => limit.name === name)?.value ?? '-';
    return other === value ? [] : [{ name, from: value, to: other }];
  });
}

/** Compares two releases by version; InputError when one is not known. @public */
export function diffReleases(fromVersion: string, toVersion: string): ReleaseDifference {
  const from = describeRelease(fromVersion);
  const to = describeRelease(toVersion);
  return {
    from: from.version,
    to: to.version,
    features: gainedAndLost(names(from.features), names(to.features)),
    fields: gainedAndLost(names(from.fields), names(to.fields)),
    hostLeaves: gainedAndLost(from.hostLeaves, to.hostLeaves),
    guestLeaves: gainedAndLost(from.guestLeaves, to.guestLeaves),
    limits: changedLimits(from, to),
  };
}
