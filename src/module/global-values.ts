/** Values of the global metadata fields (field table of release 1.5.25 and its readers). */

import { PAGE_4K } from '../abi/address.ts';
import { CPUID_POLICIES, type CpuidQuad } from '../abi/cpuid-policy.ts';
import { type CpuidConfig, cpuidConfigsOf } from './cpuid-config.ts';
import { fatal } from './fatal.ts';
import { readHandoffHeader } from './handoff.ts';
import { cpuidKey, type PlatformSnapshot } from './platform.ts';
import type { TdxModule } from './tdx-module.ts';

/** A field's value; `index` numbers the field in a run, `element` the element in the field. */
type Reader = (module: TdxModule, index: number, element: number) => bigint;

const INTEL = 0x8086n;
/** CMRs the loader hands over, filled up with empty ones. @internal */
export const CMR_ENTRIES = 32;
/** Highest address bit at which a KeyID may start with dynamic PAMT. @internal */
export const MAX_DYNAMIC_PAMT_KEYID_START_BIT = 48;
/** SEAMOPS leaf that verifies reports; local attestation needs it. */
const SEAMVERIFYREPORT = 1 << 6;
const LOCAL_ATTESTATION = 1n << 8n;
const CONFIG_IA32_ARCH_CAPABILITIES = 1n << 11n;
/** Family and model of CPUID(1).EAX, without the stepping. */
const FAMILY_MODEL = ~0xf;
const NO_LEAF = 0xffff_ffff_ffff_ffffn;
const ZERO: CpuidQuad = [0, 0, 0, 0];

const constant =
  (value: bigint): Reader =>
  () =>
    value;

/** Readers by field name. @internal */
export const GLOBAL_VALUES: Readonly<Record<string, Reader>> = {
  NUM_PKGS: ({ platform }) => BigInt(platform!.packages),
  PKG_FMS: ({ machine }, index) =>
    BigInt(machine.lps.find((lp) => lp.package.id === index)?.cpuid(1)[0] ?? 0),
  VENDOR_ID: constant(INTEL),
  BUILD_DATE: ({ release }) => BigInt(release.buildDate),
  BUILD_NUM: ({ release }) => BigInt(release.buildNumber),
  MINOR_VERSION: ({ release }) => BigInt(release.minor),
  MAJOR_VERSION: ({ release }) => BigInt(release.major),
  UPDATE_VERSION: ({ release }) => BigInt(release.update),
  INTERNAL_VERSION: constant(0n),
  MODULE_HV: ({ release }) => BigInt(release.handoff.moduleHv),
  MIN_UPDATE_HV: ({ release }) => BigInt(release.handoff.minUpdateHv),
  NO_DOWNGRADE: ({ release }) => (release.handoff.noDowngrade ? 1n : 0n),
  NUM_HANDOFF_PAGES: ({ platform }) => BigInt(platform!.handoff.pages),
  HANDOFF_DATA_VALID: ({ machine }) => (readHandoffHeader(machine.seam.handoffData).valid ? 1n : 0n),
  HANDOFF_DATA_HV: ({ machine }) => BigInt(readHandoffHeader(machine.seam.handoffData).hv),
  HANDOFF_DATA_SIZE: ({ machine }) => BigInt(readHandoffHeader(machine.seam.handoffData).size),
  SYS_ATTRIBUTES: constant(0n),
  NUM_TDX_FEATURES: constant(1n),
  TDX_FEATURES0: (module) => enabledFeatures(module),
  NUM_CMRS: constant(BigInt(CMR_ENTRIES)),
  CMR_BASE: ({ machine }, index) => BigInt(machine.cmrs[index]?.start ?? 0),
  CMR_SIZE: ({ machine }, index) => {
    const cmr = machine.cmrs[index];
    return BigInt(cmr === undefined ? 0 : cmr.end - cmr.start);
  },
  MAX_TDMRS: ({ release }) => BigInt(release.maxTdmrs),
  MAX_RESERVED_PER_TDMR: ({ release }) => BigInt(release.maxReservedPerTdmr),
  PAMT_4K_ENTRY_SIZE: ({ release }) => BigInt(release.pamtEntrySize),
  PAMT_2M_ENTRY_SIZE: ({ release }) => BigInt(release.pamtEntrySize),
  PAMT_1G_ENTRY_SIZE: ({ release }) => BigInt(release.pamtEntrySize),
  PAMT_PAGE_BITMAP_ENTRY_BITS: constant(1n),
  MIN_DYNAMIC_PAMT_NUM_HKID_BITS: ({ platform }) =>
    BigInt(Math.max(0, platform!.maxPa - MAX_DYNAMIC_PAMT_KEYID_START_BIT)),
  TDR_BASE_SIZE: constant(BigInt(PAGE_4K)),
  TDCS_BASE_SIZE: ({ release }) => BigInt(release.tdcsPages * PAGE_4K),
  TDCS_SIZE_PER_L2_VM: constant(BigInt(PAGE_4K)),
  TDVPS_BASE_SIZE: ({ release }) => BigInt(release.tdvpsPages * PAGE_4K),
  TDVPS_SIZE_PER_L2_VM: constant(BigInt(3 * PAGE_4K)),
  ATTRIBUTES_FIXED0: ({ platform }) => platform!.attributesFixed0,
  ATTRIBUTES_FIXED1: ({ platform }) => platform!.attributesFixed1,
  XFAM_FIXED0: ({ platform }) => platform!.xfamFixed0,
  XFAM_FIXED1: ({ platform }) => platform!.xfamFixed1,
  NUM_CPUID_CONFIG: ({ version }) => BigInt(cpuidConfigsOf(version).length),
  CONFIG_FLAGS_FIXED0: ({ platform }) => platform!.configFlagsFixed0,
  CONFIG_FLAGS_FIXED1: ({ platform }) => platform!.configFlagsFixed1,
  MAX_VCPUS_PER_TD: ({ release }) => BigInt(release.maxVcpusPerTd),
  MIN_VIRT_MAXPA: constant(45n),
  MAX_EVENT_FILTERS: constant(512n),
  CPUID_CONFIG_LEAVES: ({ version }, index) => {
    const config = cpuidConfigsOf(version)[index];
    return config === undefined ? NO_LEAF : leafAndSubleaf(config);
  },
  CPUID_CONFIG_VALUES: (module, index, element) => {
    const config = cpuidConfigsOf(module.version)[index];
    return config === undefined ? 0n : configurableBits(module, config)[element]!;
  },
  // MISC: bits 4 (SSB_NO), 19, 20, 24 of IA32_ARCH_CAPABILITIES.
  IA32_ARCH_CAPABILITIES_CONFIG_MASK: constant(0x118_0010n),
  NUM_ALLOWED_FMS: (module) => BigInt(allowedFms(module).length),
  NUM_DISALLOWED_FMS: constant(0n),
  ALLOWED_FMS: (module, index) => BigInt(allowedFms(module)[index] ?? 0),
  DISALLOWED_FMS: constant(0n),
  MIG_ATTRIBUTES: constant(0n),
  MIN_EXPORT_VERSION: constant(0n),
  MAX_EXPORT_VERSION: constant(0n),
  MIN_IMPORT_VERSION: constant(0n),
  MAX_IMPORT_VERSION: constant(0n),
  MAX_MIGS: constant(512n),
  NUM_IMMUTABLE_STATE_PAGES: ({ release }) => BigInt(release.migrationPages.immutable),
  NUM_TD_STATE_PAGES: ({ release }) => BigInt(release.migrationPages.td),
  NUM_VP_STATE_PAGES: ({ release }) => BigInt(release.migrationPages.vcpu),
  MAX_SERV_TDS: constant(1n),
  SERVTD_ATTR_FIXED0: constant(0x7ff_0000_0001n),
  SERVTD_ATTR_FIXED1: constant(0n),
  GUEST_L2_GPA_ATTR_MASK: constant(0x807fn),
  VM_CTLS_FIXED0: constant(1n),
  VM_CTLS_FIXED1: constant(0n),
  VPCU_L2_CTLS_FIXED0: constant(3n),
  VCPU_L2_CTLS_FIXED1: constant(0n),
  VPCU_L2_DEBUG_CTLS_FIXED0: constant(7n),
  VCPU_L2_DEBUG_CTLS_FIXED1: constant(0n),
  // Bits 0, 7, 9 and 12 are all that is known of it.
  TDX_CONNECT_FEATURES: constant(0x1281n),
};

/** True when the processor verifies reports of its own. @internal */
export function canVerifyReports({ seamCapabilities }: PlatformSnapshot): boolean {
  return (seamCapabilities & SEAMVERIFYREPORT) !== 0;
}

/** TDX_FEATURES0 without what this platform cannot do. @internal */
export function enabledFeatures({ release, platform }: TdxModule): bigint {
  let features = release.features0;
  if (!canVerifyReports(platform!)) features &= ~LOCAL_ATTESTATION;
  if (platform!.earlyStepping) features &= ~CONFIG_IA32_ARCH_CAPABILITIES;
  return features;
}

/** The two quadwords of a configurable leaf: what TD_PARAMS may set, EAX and EBX, then ECX and EDX. @internal */
export function configurableBits(module: TdxModule, config: CpuidConfig): readonly [bigint, bigint] {
  const native = cpuidValue(module, config);
  const [eax, ebx, ecx, edx] = config.direct.map((direct, i) => direct | (config.allow[i]! & native[i]!));
  return [quadword(eax!, ebx!), quadword(ecx!, edx!)];
}

/** Leaf in the low half, subleaf in the high half, all ones for none. @internal */
export function leafAndSubleaf({ leaf, subleaf }: CpuidConfig): bigint {
  return quadword(leaf, subleaf ?? 0xffff_ffff);
}

/** As sampled by SYS.INIT; SYS.CONFIG and SYS.UPDATE lay the bits over it that no TD can have otherwise. */
function cpuidValue({ platform, sysState }: TdxModule, { leaf, subleaf }: CpuidConfig): CpuidQuad {
  const sampled = (platform as PlatformSnapshot).cpuid.get(cpuidKey(leaf, subleaf)) ?? ZERO;
  if (sysState === 'SYSINIT_DONE') return sampled;
  const policy = CPUID_POLICIES.find((entry) => entry.leaf === leaf && entry.subleaf === subleaf);
  const { fixed0OrDynamic = ZERO, fixed1 = ZERO } = policy ?? {};
  return sampled.map((value, i) => (value & ~fixed0OrDynamic[i]!) | fixed1[i]!) as unknown as CpuidQuad;
}

/** The platform's own family, model and stepping, then every older family the release knows. */
function allowedFms({ release, platform }: TdxModule): readonly number[] {
  const own = platform!.fms;
  const start = release.knownFms.findIndex((fms) => ((fms ^ own) & FAMILY_MODEL) === 0);
  if (start < 0) fatal(`CPU family and model 0x${own.toString(16)} is not known to this release`);
  return [own, ...release.knownFms.slice(start + 1)];
}

function quadword(low: number, high: number): bigint {
  return BigInt(low >>> 0) | (BigInt(high >>> 0) << 32n);
}
