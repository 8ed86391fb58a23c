/** A release of the TDX module as people ask about it: features by name, limits, fields, leaves. */
import { type Feature, featuresOf } from '../../abi/features.ts';
import { type GlobalField, globalFieldsOf } from '../../abi/global-fields.ts';
import { InputError } from '../../abi/input-error.ts';
import { LEAVES } from '../../abi/leaves.ts';
import { cpuidConfigsOf } from '../../module/cpuid-config.ts';
import { findRelease, type ModuleRelease, RELEASES } from '../../module/releases.ts';

/** One limit of a release. @public */
export interface Limit {
  readonly name: string;
  readonly value: number | string;
}

/** A release in full. @public */
export interface ReleaseDescription {
  readonly version: string;
  /** Decimal YYYYMMDD of a known official build; null where none is known. */
  readonly buildDate: number | null;
  readonly buildNumber: number | null;
  readonly features0: bigint;
  readonly features: readonly Feature[];
  readonly limits: readonly Limit[];
  readonly fields: readonly GlobalField[];
  readonly hostLeaves: readonly string[];
  readonly guestLeaves: readonly string[];
}

const hexOf = (value: number | bigint): string => `0x${value.toString(16)}`;

function limitsOf(release: ModuleRelease): Limit[] {
  const { migrationPages, handoff, knownFms } = release;
  return [
    { name: 'TDMRs', value: release.maxTdmrs },
    { name: 'reserved areas per TDMR', value: release.maxReservedPerTdmr },
    { name: 'bytes per PAMT entry', value: release.pamtEntrySize },
    { name: 'pages per TDCS', value: release.tdcsPages },
    { name: 'pages per TDVPS', value: release.tdvpsPages },
    { name: 'VCPUs per TD', value: release.maxVcpusPerTd },
    { name: 'CPUID entries a host configures', value: cpuidConfigsOf(release.version).length },
    { name: 'CONFIG_FLAGS a TD may have', value: hexOf(release.configFlags) },
    { name: 'handoff version written', value: handoff.moduleHv },
    { name: 'handoff version read, oldest', value: handoff.minUpdateHv },
    { name: 'pages of migrated state: immutable', value: migrationPages.immutable },
    { name: 'pages of migrated state: TD', value: migrationPages.td },
    { name: 'pages of migrated state: VCPU', value: migrationPages.vcpu },
    { name: 'CPU models known (family, model, stepping)', value: knownFms.map(hexOf).join(' ') },
  ];
}

/** Describes a release by its version; InputError with the known ones when there is no such release. @public */
export function describeRelease(version: string): ReleaseDescription {
  const release = findRelease(version);
  if (release === undefined) {
    const known = RELEASES.map((candidate) => candidate.version).join(', ');
    throw new InputError(`no TDX module release \`${version}\` is known; known are ${known}`);
  }
  const official = release.buildDate !== 0;
  return {
    version: release.version,
    buildDate: official ? release.buildDate : null,
    buildNumber: official && release.buildNumber !== 0 ? release.buildNumber : null,
    features0: release.features0,
    features: featuresOf(release.features0),
    limits: limitsOf(release),
    fields: globalFieldsOf(release.version),
    hostLeaves: LEAVES.filter(({ side, number }) => side === 'host' && release.leaves.has(number)).map(
      ({ name }) => name,
    ),
    guestLeaves: LEAVES.filter(({ side, number }) => side === 'guest' && release.guestLeaves.has(number)).map(
      ({ name }) => name,
    ),
  };
}

/** Every release known, oldest first. @public */
export function describeReleases(): readonly ReleaseDescription[] {
  return RELEASES.map(({ version }) => describeRelease(version));
}
