/** The TDX module: its global state and the SEAMCALL dispatcher. */
import { OPERAND } from '../abi/operands.ts';
import { RAX } from '../abi/registers.ts';
import { withOperand } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import type { Machine } from '../machine/machine.ts';
import type { SeamImage } from '../machine/seam.ts';
import { leafCostNs } from './costs.ts';
import type { GuestRunner } from './guest/guest-runner.ts';
import type { RunningVcpu } from './guest/running-vcpu.ts';
import { HOST_LEAVES } from './host-leaves.ts';
import { KeyOwnershipTable, MAX_PKGS, WriteBackEntry } from './kot.ts';
import type { Leaf } from './leaf.ts';
import { SharexLock } from './locks.ts';
import { Pamt } from './pamt.ts';
import type { InitializedLp, PlatformSnapshot } from './platform.ts';
import { findRelease, type ModuleRelease } from './releases.ts';
import { measurementsOf, type TdMeasurement } from './td/measurement.ts';
import type { TrustDomain } from './td/trust-domain.ts';

/** Initialisation states in their order (module facts 3). @public */
export type SysState = 'SYSINIT_PENDING' | 'SYSINIT_DONE' | 'SYSCONFIG_DONE' | 'SYS_READY' | 'SYS_SHUTDOWN';

const OPERAND_INVALID_RAX = withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
/** Leaf TDH.SYS.LP.SHUTDOWN: the only one that still answers after a shutdown. */
const LP_SHUTDOWN = 44;

/** @public */
export class TdxModule implements SeamImage {
  readonly machine: Machine;
  readonly release: ModuleRelease;
  readonly version: string;
  sysState: SysState = 'SYSINIT_PENDING';
  /** Serialises the leaves that change the module's global state. */
  readonly globalLock = new SharexLock();
  /** What SYS.INIT learnt of the platform; null before it. */
  platform: PlatformSnapshot | null = null;
  /** LPs on which LP.INIT is done, by LP index. */
  readonly lps: (InitializedLp | undefined)[] = [];
  readonly kot = new KeyOwnershipTable();
  /** PHYMEM.CACHE.WB by package. */
  readonly writeBack: readonly WriteBackEntry[] = Array.from(
    { length: MAX_PKGS },
    () => new WriteBackEntry(),
  );
  /** Page metadata of the TDMRs; without TDMRs before SYS.CONFIG. */
  pamt: Pamt;
  /** The module's own KeyID, given with SYS.CONFIG. */
  globalKeyId = 0;
  /** Packages that have the key of `globalKeyId`, one bit each. */
  configuredPackages = 0;
  /** TDs that are being built, and migrations that were interrupted: an update would not be compatible with them. */
  tdBuildCount = 0;
  migrationInterruptedCount = 0;
  /** Given with SYS.UPDATE: TDs keep what the older module offered. */
  updateCompatibility = false;
  /** LPs that are in SEAM mode beyond the call at hand, because they run a TD. */
  lpsInTd = 0;
  /** TDs by page frame number of their TDR (small keys are found faster), as `trustDomainAt` found them. */
  readonly trustDomains = new Map<number, TrustDomain>();
  /** The running measurements of TDs under construction, by address of the TDR; see `measurementsOf`. */
  readonly measurements: Map<number, TdMeasurement>;
  /** The vCPUs that are entered, by LP index. */
  readonly running: (RunningVcpu | undefined)[] = [];
  /** What executes the guests; null when something else delivers their VM exits. */
  guestRunner: GuestRunner | null = null;
  readonly #leaves: readonly (Leaf | undefined)[];

  constructor(machine: Machine, release: ModuleRelease) {
    this.machine = machine;
    this.release = release;
    this.version = release.version;
    this.pamt = new Pamt(machine.memory, [], 0, false);
    this.measurements = measurementsOf(machine.memory);
    this.#leaves = leavesOf(release);
  }

  /** The same module before its first SEAMCALL. */
  asLoaded(): TdxModule {
    const module = new TdxModule(this.machine, this.release);
    module.guestRunner = this.guestRunner;
    return module;
  }

  /** LP.INIT is done on every LP that SYS.INIT counted. */
  get allLpsInitialised(): boolean {
    return this.lps.filter((lp) => lp !== undefined).length >= this.platform!.lps;
  }

  isPrivateKeyId(keyId: number): boolean {
    const { privateHkidMin, privateHkidMax } = this.platform!;
    return privateHkidMin <= keyId && keyId <= privateHkidMax;
  }

  /** Package of an LP as LP.INIT found it; 0 for an LP without it, as for one never seen. */
  packageOf(lp: LogicalProcessor): number {
    return this.lps[lp.index]?.package ?? 0;
  }

  /** Executes the leaf in RAX; checks in the dispatcher's order (module facts 1). */
  seamcall(lp: LogicalProcessor): void {
    const low = lp.regs.d[2 * RAX]!;
    this.machine.clock.advance(leafCostNs(low & 0xffff));
    lp.regs.q[RAX] = this.#dispatch(lp, low, lp.regs.d[2 * RAX + 1]!);
  }

  /** State for a saved machine, taken while no vCPU is entered; page metadata and measurements are apart. */
  save() {
    return {
      version: this.version,
      sysState: this.sysState,
      globalLock: this.globalLock.word,
      platform: this.platform,
      lps: this.lps,
      kot: this.kot.save(),
      writeBack: this.writeBack.map((entry) => entry.save()),
      pamt: this.pamt.save(),
      globalKeyId: this.globalKeyId,
      configuredPackages: this.configuredPackages,
      tdBuildCount: this.tdBuildCount,
      migrationInterruptedCount: this.migrationInterruptedCount,
      updateCompatibility: this.updateCompatibility,
      lpsInTd: this.lpsInTd,
    };
  }

  /** The module that `save` was called on, again, on another machine. */
  static restored(machine: Machine, saved: ReturnType<TdxModule['save']>): TdxModule {
    const module = new TdxModule(machine, findRelease(saved.version)!);
    module.sysState = saved.sysState;
    module.globalLock.word = saved.globalLock;
    module.platform = saved.platform;
    module.lps.push(...saved.lps);
    module.kot.restore(saved.kot);
    saved.writeBack.forEach((entry, i) => {
      module.writeBack[i]!.restore(entry);
    });
    module.pamt = Pamt.restored(machine.memory, saved.pamt);
    module.globalKeyId = saved.globalKeyId;
    module.configuredPackages = saved.configuredPackages;
    module.tdBuildCount = saved.tdBuildCount;
    module.migrationInterruptedCount = saved.migrationInterruptedCount;
    module.updateCompatibility = saved.updateCompatibility;
    module.lpsInTd = saved.lpsInTd;
    return module;
  }

  #dispatch(lp: LogicalProcessor, low: number, high: number): bigint {
    if (high !== 0 || low >= 0x100_0000) return OPERAND_INVALID_RAX;
    const number = low & 0xffff;
    const version = low >>> 16;
    const leaf = this.#leaves[number];
    if (version > 0 && !this.release.versionedLeaves.has(number)) return OPERAND_INVALID_RAX;
    if (this.sysState === 'SYS_SHUTDOWN' && number !== LP_SHUTDOWN) return STATUS.TDX_SYS_SHUTDOWN;
    if (this.sysState !== 'SYS_READY' && leaf?.beforeReady !== true) return STATUS.TDX_SYS_NOT_READY;
    if (leaf === undefined) return OPERAND_INVALID_RAX;
    return leaf.handler(this, lp, version);
  }
}

/** The table of leaves that `release` has. */
function leavesOf(release: ModuleRelease): readonly (Leaf | undefined)[] {
  return HOST_LEAVES.map((leaf, number) => (release.leaves.has(number) ? leaf : undefined));
}
