/**
 * Goes through the stages of initialisation without executing a SEAMCALL: what the kernel decides is asked of the
 * kernel's own functions, what the module would answer of the module's own checks and release data.
 */
import { type AddressRange, PAGE_4K } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { hasFeature } from '../../abi/features.ts';
import { compareVersions, findGlobalField } from '../../abi/global-fields.ts';
import { TDH } from '../../abi/leaves.ts';
import { SW_STATUS, withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { bootMemory } from '../../kernel/boot-memory.ts';
import { allocTdmrList, tdmrInfo } from '../../kernel/config.ts';
import { Cpu } from '../../kernel/cpu.ts';
import { type Detection, detectTdx } from '../../kernel/detect.ts';
import { dynamicPamtObstacle } from '../../kernel/dynamic-pamt.ts';
import { type KernelConfig, kernelConfig } from '../../kernel/kernel-config.ts';
import { LogRing } from '../../kernel/log.ts';
import type { MemblockRegion } from '../../kernel/memblock.ts';
import { buildTdxMemlist, type TdxMemoryBlock } from '../../kernel/memlist.ts';
import { allocPamts, type Pamt, pamtNode, pamtRange } from '../../kernel/pamt-alloc.ts';
import { DEFAULT_POLICY } from '../../kernel/policy/kernel-policy.ts';
import { neededReservedAreas } from '../../kernel/reserved-areas.ts';
import { seamcallError } from '../../kernel/seamcall.ts';
import type { StageName } from '../../kernel/stages.ts';
import { rbpClobberError } from '../../kernel/sysinfo.ts';
import { SCALAR_FIELDS } from '../../kernel/sysinfo-fields.ts';
import { attachReservedAreas, fillOutTdmrs, type Tdmr, type TdmrLimits } from '../../kernel/tdmr.ts';
import { getVmx, prepareVmx } from '../../kernel/vmx.ts';
import { Machine } from '../../machine/machine.ts';
import { MAX_PKGS } from '../../module/kot.ts';
import { type HardwareSample, samplePlatform } from '../../module/platform-sample.ts';
import { locate } from '../../module/platform-topology.ts';
import { findRelease, type ModuleRelease } from '../../module/releases.ts';
import { checkTdmrs } from '../../module/tdmr-checks.ts';
import type { Survey } from '../../survey/survey.ts';
import type { PlannedReservedArea, PlanOptions } from './plan.ts';

/** A TDMR as far as the stages got with it. @internal */
export interface PredictedTdmr extends AddressRange {
  readonly node: number;
  readonly pamt: Pamt | null;
  readonly reserved: readonly PlannedReservedArea[];
}

/** The stage at which initialisation would stop, with its failure. @internal */
export interface PredictedFailure {
  readonly step: StageName;
  readonly error: KernelError;
}

/** @internal */
export interface Prediction {
  readonly machine: Machine;
  readonly release: ModuleRelease | null;
  readonly limits: TdmrLimits;
  readonly detection: Detection | null;
  readonly memblock: readonly MemblockRegion[];
  readonly memlist: readonly TdxMemoryBlock[];
  readonly tdmrs: readonly PredictedTdmr[];
  readonly dynamicPamt: boolean;
  readonly warnings: readonly string[];
  readonly failure: PredictedFailure | null;
}

/** Limits that every release so far has, for plans without a module. */
const LIMITS_BEFORE_SYSINFO: TdmrLimits = {
  maxTdmrs: 64,
  maxReservedPerTdmr: 16,
  pamt4kEntrySize: 16,
  pamt2mEntrySize: 16,
  pamt1gEntrySize: 16,
};

/**
 * Everything up to and including TDH.SYS.CONFIG; the stages after it depend on no property of the machine. Throws
 * for a release nobody knows.
 * @internal
 */
export function predict(survey: Survey, options: PlanOptions): Prediction {
  const description = { ...survey.machine, module: options.module ?? survey.machine.module };
  const machine = new Machine(description);
  const config = kernelConfig(survey.kernel);
  const release = releaseNamed(description.module);
  const warnings: string[] = [];
  const warn = (text: string): void => void warnings.push(text);
  let failure: PredictedFailure | null = null;
  const stage = <T>(step: StageName, work: () => T): T | null => {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      failure ??= { step, error };
      return null;
    }
  };

  const detection = stage('detect', () =>
    detectTdx(machine.lps[0]!, config, () => {}, new LogRing(machine.clock)),
  );
  const { memblock, allocator } = bootMemory(description, config);
  const cpus = machine.lps.map((lp) => new Cpu(lp));
  for (const cpu of cpus) prepareVmx(cpu, allocator);
  stage('cpus', () => predictCpus(cpus.slice(0, config.maxCpus), release));
  stage('sysinfo', () => predictSysinfo(release));
  stage('features', () => predictFeatures(release));
  const dynamicPamt =
    options.dynamicPamt &&
    release !== null &&
    dynamicPamtObstacle(release.features0, machine.keyIdStartBit) === null;
  const limits = release === null ? LIMITS_BEFORE_SYSINFO : limitsOf(release);
  const memlist = buildTdxMemlist(
    { memblock, cmrs: description.cmrs, srat: description.srat },
    DEFAULT_POLICY,
  );
  stage('tdmr-list', () => allocTdmrList(cpus[0]!, allocator, limits));
  const ranges = stage('tdmrs', () => fillOutTdmrs(memlist, limits.maxTdmrs, warn)) ?? [];
  const pamts = stage('pamts', () => allocPamts(ranges, memlist, limits, dynamicPamt, allocator, warn));
  const memory =
    options.holes === 'cmr'
      ? description.cmrs
      : memlist.map((block) => ({ start: block.startPfn * PAGE_4K, end: block.endPfn * PAGE_4K }));
  const chunks = pamts?.map(pamtRange) ?? [];
  const tdmrs = ranges.map((range, i): PredictedTdmr => {
    const pamt = pamts?.[i] ?? null;
    const node = pamtNode(range, memlist) ?? 0;
    return { ...range, node, pamt, reserved: neededReservedAreas(range, memory, chunks) };
  });
  if (pamts !== null) {
    const made = stage('reserved-areas', () =>
      attachReservedAreas(ranges, pamts, {
        memlist,
        cmrs: description.cmrs,
        holes: options.holes,
        limits,
        warn,
      }),
    );
    if (made !== null) stage('config', () => predictConfig(machine, config, made, dynamicPamt));
  }
  return { machine, release, limits, detection, memblock, memlist, tdmrs, dynamicPamt, warnings, failure };
}

function releaseNamed(version: string | null): ModuleRelease | null {
  if (version === null) return null;
  const release = findRelease(version);
  if (release === undefined) throw new Error(`there is no module release '${version}'`);
  return release;
}

/** VMX operation, then on the first CPU the checks of TDH.SYS.INIT, and on every one where TDH.SYS.LP.INIT finds it. */
function predictCpus(online: readonly Cpu[], release: ModuleRelease | null): void {
  let platform: HardwareSample | null = null;
  for (const cpu of online) {
    getVmx(cpu);
    if (!cpu.lp.machine.seam.enabled) throw seamcallError(TDH.sysInit, SW_STATUS.TDX_SEAMCALL_GP);
    if (release === null) throw seamcallError(TDH.sysInit, SW_STATUS.TDX_SEAMCALL_VMFAILINVALID);
    platform ??= predictSysInit(cpu);
    const place = locate(platform.x2apic, cpu.lp.apicId);
    if (place.package < MAX_PKGS) continue;
    throw seamcallError(TDH.sysLpInit, withOperand(STATUS.TDX_INVALID_PKG_ID, place.package));
  }
}

function predictSysInit({ lp }: Cpu): HardwareSample {
  const sample = samplePlatform(lp);
  if (typeof sample === 'bigint') throw seamcallError(TDH.sysInit, sample);
  return sample;
}

/**
 * A TDX 1.0 module has no SYS.RD; before it is ready it says so to any leaf it would refuse anyway. A later one
 * may lack a field that the kernel reads without a feature bit to guard it.
 */
function predictSysinfo(release: ModuleRelease | null): void {
  if (release === null) return;
  if (!release.leaves.has(TDH.sysRd)) throw seamcallError(TDH.sysRd, STATUS.TDX_SYS_NOT_READY);
  const asked = SCALAR_FIELDS.filter(
    ({ feature }) => feature === undefined || hasBit(release.features0, feature),
  );
  const missing = asked.find(
    ({ id }) => compareVersions(findGlobalField(id)!.field.since, release.version) > 0,
  );
  if (missing !== undefined) throw seamcallError(TDH.sysRd, STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
}

function hasBit(features0: bigint, bit: number): boolean {
  return ((features0 >> BigInt(bit)) & 1n) === 1n;
}

function predictFeatures(release: ModuleRelease | null): void {
  if (release === null || hasFeature(release.features0, 'NO_RBP_MOD')) return;
  throw rbpClobberError(release.version, release.features0);
}

function predictConfig(
  machine: Machine,
  config: KernelConfig,
  tdmrs: readonly Tdmr[],
  dynamicPamt: boolean,
): void {
  const refused = (status: bigint): KernelError => seamcallError(TDH.sysConfig, status);
  // The module waits for every LP the BIOS has enabled, so one left offline keeps it from being configured.
  if (config.maxCpus < machine.lps.length) throw refused(STATUS.TDX_SYS_CONFIG_NOT_PENDING);
  const status = checkTdmrs(tdmrs.map(tdmrInfo), {
    cmrs: machine.cmrs,
    keyIdStartBit: machine.keyIdStartBit,
    maxPaBits: machine.description.physicalAddressBits,
    dynamicPamt,
  });
  if (status !== STATUS.TDX_SUCCESS) throw refused(status);
}

function limitsOf({ maxTdmrs, maxReservedPerTdmr, pamtEntrySize, features0 }: ModuleRelease): TdmrLimits {
  const limits = {
    maxTdmrs,
    maxReservedPerTdmr,
    pamt4kEntrySize: pamtEntrySize,
    pamt2mEntrySize: pamtEntrySize,
    pamt1gEntrySize: pamtEntrySize,
  };
  return hasFeature(features0, 'DYNAMIC_PAMT') ? { ...limits, pamtPageBitmapEntryBits: 1 } : limits;
}
