/** What differs between releases of the TDX module, as data (module facts 0 and the published sources). */
import { compareVersions } from '../abi/global-fields.ts';
import { LEAVES, TDG, TDH } from '../abi/leaves.ts';

/** Versions of the hand-off format, as the signature of a module image states them to the loader. @public */
export interface HandoffVersions {
  /** Format this module writes. */
  readonly moduleHv: number;
  /** Oldest format it understands. */
  readonly minUpdateHv: number;
  /** It writes only its own format. */
  readonly noDowngrade: boolean;
}

/** One release. @public */
export interface ModuleRelease {
  /** "1.5.25". */
  readonly version: string;
  readonly major: number;
  readonly minor: number;
  readonly update: number;
  /** Day of a known official build as a decimal YYYYMMDD; 0 where none is known. */
  readonly buildDate: number;
  readonly buildNumber: number;
  /** TDX_FEATURES0. */
  readonly features0: bigint;
  readonly maxTdmrs: number;
  readonly maxReservedPerTdmr: number;
  /** Bytes per PAMT entry at every level. */
  readonly pamtEntrySize: number;
  /** Pages of a TDCS and of a TDVPS without L2 VMs. */
  readonly tdcsPages: number;
  readonly tdvpsPages: number;
  readonly maxVcpusPerTd: number;
  /** CONFIG_FLAGS bits a TD may have. */
  readonly configFlags: bigint;
  /** Pages of migrated state: immutable, of a TD, of a VCPU. */
  readonly migrationPages: { readonly immutable: number; readonly td: number; readonly vcpu: number };
  readonly handoff: HandoffVersions;
  /** SYS.LP.SHUTDOWN shuts the module down; later releases only accept the call. */
  readonly lpShutdownEndsModule: boolean;
  /** CPUs it runs TDs of, newest family first, as CPUID(1).EAX with the latest stepping. */
  readonly knownFms: readonly number[];
  /** Numbers of the host leaves it has. */
  readonly leaves: ReadonlySet<number>;
  /** Host leaves that accept a version above 0. */
  readonly versionedLeaves: ReadonlySet<number>;
  /** Newest version of every guest leaf it has, by number. */
  readonly guestLeaves: ReadonlyMap<number, number>;
}

/** SYS.DISABLE is enumerated by this feature bit (Linux host rules 1.7). */
const SYS_DISABLE_FEATURE = 1n << 53n;
/** Host leaves of release 1.0: the first 45 numbers without RELOCATE, SYS.RD, SYS.RDALL and SEPT.WR. */
const LAST_LEAF_1_0 = 45;
const LAST_GUEST_LEAF_1_0 = TDG.vmWr;
const NOT_IN_1_0: ReadonlySet<number> = new Set([
  TDH.memPageRelocate,
  TDH.sysRd,
  TDH.sysRdall,
  TDH.memSeptWr,
]);

/** Leaves with versions, and the first release whose dispatcher lets them through. */
const VERSIONED_SINCE: readonly (readonly [leaf: number, since: string])[] = [
  [TDH.memPagePromote, '1.5.01'],
  [TDH.memSeptAdd, '1.5.01'],
  [TDH.memSeptRemove, '1.5.01'],
  [TDH.mngRd, '1.5.01'],
  [TDH.vpRd, '1.5.01'],
  [TDH.vpInit, '1.5.05'],
  [TDH.sysInit, '1.5.13'],
  [TDH.sysUpdate, '1.5.24'],
];

/** Guest leaves with versions: the newest version, and the first release that has it; oldest release first. */
const GUEST_VERSIONS_SINCE: readonly (readonly [leaf: number, version: number, since: string])[] = [
  [TDG.vmRd, 1, '1.5.01'],
  [TDG.vpVeinfoGet, 1, '1.5.09'],
  [TDG.vpVeinfoGet, 2, '1.5.24'],
];

/** Sapphire Rapids 0x806F8, Emerald Rapids 0xC06F2, Sierra Forest, Granite Rapids SP and D, Clearwater Forest. */
const FMS_2023: readonly number[] = [0xd06d0, 0xa06e0, 0xa06d0, 0xa06f3, 0xc06f2, 0x806f8];
const FMS_2025: readonly number[] = [0xd06d1, 0xa06e1, 0xa06d1, 0xa06f3, 0xc06f2, 0x806f8];

const HANDOFF_V0: HandoffVersions = { moduleHv: 0, minUpdateHv: 0, noDowngrade: false };
const HANDOFF_V1: HandoffVersions = { moduleHv: 1, minUpdateHv: 0, noDowngrade: true };

type ReleaseData = Pick<ModuleRelease, 'features0'> &
  Partial<
    Omit<
      ModuleRelease,
      'version' | 'major' | 'minor' | 'update' | 'leaves' | 'versionedLeaves' | 'guestLeaves'
    >
  >;

function release(version: string, data: ReleaseData): ModuleRelease {
  const [major = 0, minor = 0, update = 0] = version.split('.').map(Number);
  return {
    version,
    major,
    minor,
    update,
    buildDate: 0,
    buildNumber: 0,
    maxTdmrs: 64,
    maxReservedPerTdmr: 16,
    pamtEntrySize: 16,
    tdcsPages: 6,
    tdvpsPages: 6,
    maxVcpusPerTd: 576,
    configFlags: 0x1fn,
    migrationPages: { immutable: 4, td: 2, vcpu: 9 },
    handoff: HANDOFF_V1,
    lpShutdownEndsModule: false,
    knownFms: FMS_2025,
    leaves: leavesOf(version, data.features0),
    versionedLeaves: new Set(
      VERSIONED_SINCE.filter(([, since]) => compareVersions(since, version) <= 0).map(([leaf]) => leaf),
    ),
    guestLeaves: guestLeavesOf(version),
    ...data,
  };
}

function leavesOf(version: string, features0: bigint): ReadonlySet<number> {
  const numbers = LEAVES.filter(({ side, number, firstSeen }) => {
    if (side !== 'host') return false;
    if (version === '1.0') return number <= LAST_LEAF_1_0 && !NOT_IN_1_0.has(number);
    if (number === TDH.sysDisable) return (features0 & SYS_DISABLE_FEATURE) !== 0n;
    return compareVersions(firstSeen, version) <= 0;
  }).map(({ number }) => number);
  return new Set(numbers);
}

function guestLeavesOf(version: string): ReadonlyMap<number, number> {
  const leaves = LEAVES.filter(({ side, number, firstSeen }) => {
    if (side !== 'guest') return false;
    return version === '1.0' ? number <= LAST_GUEST_LEAF_1_0 : compareVersions(firstSeen, version) <= 0;
  });
  const newest = new Map(leaves.map(({ number }) => [number, 0]));
  for (const [leaf, leafVersion, since] of GUEST_VERSIONS_SINCE) {
    if (compareVersions(since, version) <= 0) newest.set(leaf, leafVersion);
  }
  return newest;
}

const OLD_STATE = {
  handoff: HANDOFF_V0,
  knownFms: FMS_2023,
  migrationPages: { immutable: 4, td: 2, vcpu: 5 },
};

/** Every release known, oldest first. @public */
export const RELEASES: readonly ModuleRelease[] = [
  release('1.0', {
    ...OLD_STATE,
    features0: 0n,
    buildDate: 20211209,
    buildNumber: 160,
    lpShutdownEndsModule: true,
    tdcsPages: 4,
    configFlags: 0x1n,
  }),
  release('1.5.01', {
    ...OLD_STATE,
    features0: 0xf_0fbfn,
    configFlags: 0x7n,
    migrationPages: { immutable: 3, td: 2, vcpu: 5 },
    knownFms: [0xd06d0, 0xa06e0, 0xa06d0, 0xa06f0, 0xc06f2, 0x806f8],
  }),
  release('1.5.05', {
    ...OLD_STATE,
    features0: 0x61f_0fbfn,
    configFlags: 0x7n,
    buildDate: 20240129,
    buildNumber: 698,
  }),
  release('1.5.06', { ...OLD_STATE, features0: 0x2e1f_0fbfn, configFlags: 0xfn }),
  release('1.5.08', { ...OLD_STATE, features0: 0x2_2e1f_0fbfn }),
  release('1.5.09', { ...OLD_STATE, features0: 0x2_6f1f_0fbfn }),
  release('1.5.13', {
    ...OLD_STATE,
    features0: 0x22_6f1f_0fbfn,
    knownFms: [0xd06d1, 0xa06f3, 0xc06f2, 0x806f8],
  }),
  release('1.5.16', { features0: 0x22_6f3f_0fbfn, handoff: HANDOFF_V0 }),
  release('1.5.20', { features0: 0x1032_6f3f_0fbfn, handoff: HANDOFF_V0 }),
  release('1.5.24', { features0: 0xd132_6f3f_0fbfn }),
  // The reference; not an official build, its date is that of the source.
  release('1.5.25', { features0: 0xd132_6f3f_0fbfn, buildDate: 20260610 }),
  // Known of 2.0: fields, leaves, operation states. FEATURES0 is extrapolated: 2.0.04 (0x12_AF1F_0FBF) with what its
  // leaves and configuration flags imply: TDX_IO, TDX_CONNECT_PARTITIONING, PAGE_RELEASE, SYS_DISABLE.
  release('2.0.08', { features0: 0x20_0053_af1f_0fffn, configFlags: 0x7fn }),
];

/** The release called `version`, or undefined. @public */
export function findRelease(version: string): ModuleRelease | undefined {
  return RELEASES.find((candidate) => candidate.version === version);
}
