/** TDX on this host from detection to an initialised module, once per boot, and what became of it. */
import type { AddressRange } from '../abi/address.ts';
import { KernelError, type Reason } from '../abi/errno.ts';
import type { Machine } from '../machine/machine.ts';
import type { PageAllocator } from './allocator.ts';
import type { Cpu } from './cpu.ts';
import { TdxCpuState } from './cpu-hotplug.ts';
import { type Detection, detectTdx } from './detect.ts';
import { type EnabledTdx, enableTdx } from './enable.ts';
import type { MemoryHotplug } from './hotplug.ts';
import type { KernelConfig } from './kernel-config.ts';
import { KeyIdPool } from './keyid-pool.ts';
import type { LogRing } from './log.ts';
import { buildTdxMemlist } from './memlist.ts';
import { usableMemory } from './memory-blocks.ts';
import { PamtReservation } from './pamt-reservation.ts';
import type { KernelPolicy } from './policy/kernel-policy.ts';
import { type PrimingHost, primeTd } from './prime-td.ts';
import type { SchedulingPoint } from './scheduling.ts';
import { StageList } from './stages.ts';
import { deepFreeze, type TdxSysinfo } from './sysinfo.ts';
import { shutDownModule } from './undo.ts';

/**
 * Whether the module is initialised. `error` is final for this boot; `disabled`: it was, and is no longer.
 * @public
 */
export type TdxState = 'uninitialized' | 'initialized' | 'error' | 'disabled';

/** What initialisation needs of the kernel. @internal */
export interface EnablerContext extends PrimingHost {
  readonly machine: Machine;
  readonly config: KernelConfig;
  readonly cpus: readonly Cpu[];
  readonly allocator: PageAllocator;
  readonly log: LogRing;
  readonly hotplug: MemoryHotplug;
  readonly policy: KernelPolicy;
  readonly schedule: SchedulingPoint | null;
}

/** @internal */
export class TdxEnabler {
  /** What early detection found; null where TDX is off. */
  detection: Detection | null = null;
  /** Everything the module reported, frozen; null until it was asked. Known even when a later stage failed. */
  sysinfo: TdxSysinfo | null = null;
  /** What initialisation made; null before and after a failure. */
  enabled: EnabledTdx | null = null;
  /** KeyIDs for guests; an empty pool where TDX is off. */
  keyIds = new KeyIdPool(0, 0);
  state: TdxState = 'uninitialized';
  readonly stages = new StageList();
  readonly cpuState: TdxCpuState;
  /** Memory set aside for PAMTs until then. */
  readonly reservation: PamtReservation;
  readonly #context: EnablerContext;
  /** An initialisation under way, which further callers wait for. */
  #running: Promise<EnabledTdx> | null = null;
  /** Why an initialised module is so no longer. */
  #gone: Reason | null = null;
  #usable: readonly (AddressRange & { readonly node: number })[] | null = null;

  constructor(context: EnablerContext) {
    this.#context = context;
    this.cpuState = new TdxCpuState(context.log);
    this.reservation = new PamtReservation(context.allocator);
  }

  /** An initialisation is under way. */
  get isRunning(): boolean {
    return this.#running !== null;
  }

  /** Memory TDs can use: the TDX memory less what a TDMR reserves as a hole. The same array while it does not change. */
  get usable(): readonly (AddressRange & { readonly node: number })[] {
    this.#usable ??= usableMemory(this.enabled?.memlist ?? [], this.enabled?.tdmrs ?? []);
    return this.#usable;
  }

  /** Early detection on the boot CPU. Throws KernelError where TDX stays off. */
  async detect(registerNotifier: () => void): Promise<void> {
    const { cpus, config, log } = this.#context;
    const { lp } = cpus[0]!;
    this.detection = await this.stages.run('detect', () => detectTdx(lp, config, registerNotifier, log));
    const { start, count } = this.detection.guestKeyIds;
    this.keyIds = new KeyIdPool(start, count);
  }

  /**
   * Detection, and what the policy `enable` has done at boot. A kernel boots without TDX too: what went wrong is in
   * `stages` and in the log.
   */
  async boot(registerNotifier: () => void): Promise<void> {
    const { enable, optedIn, pamtPlacement } = this.#context.policy;
    const enablesAtBoot = enable === 'boot' || enable === 'primed' || (enable === 'opt-in' && optedIn);
    try {
      await this.detect(registerNotifier);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
    }
    try {
      if (enablesAtBoot) await this.enable();
      else if (pamtPlacement === 'reserved') this.reservePamt();
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
    }
  }

  /** Sets memory aside for an initialisation that comes later, as far as TDX memory is known before. */
  reservePamt(): void {
    const { policy, hotplug, machine, log } = this.#context;
    const sources = { memblock: hotplug.memblock, cmrs: [], srat: machine.description.srat };
    if (this.detection === null) return;
    if (this.reservation.reserve(buildTdxMemlist(sources, policy), policy.dynamicPamt)) return;
    log.warn('no memory could be set aside for PAMTs', 'pamt-reservation');
  }

  /**
   * Initialises the module, once: callers that come meanwhile share the outcome, later ones get it again. Throws
   * ENODEV where TDX is off or not opted in, the failing stage's errno the first time and EINVAL after that.
   */
  enable(): Promise<EnabledTdx> {
    this.#running ??= this.#enableOnce().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  /** What a first user calls. Under `first-user` it initialises; otherwise it throws ENODEV unless that is done. */
  async get(): Promise<TdxSysinfo> {
    if (this.state === 'uninitialized' && this.#context.policy.enable === 'first-user') await this.enable();
    if (this.enabled === null || this.sysinfo === null) {
      const why = this.whyOff();
      throw new KernelError('ENODEV', 'tdx-not-initialized', `TDX is not available: ${why.text}`, { why });
    }
    return this.sysinfo;
  }

  /** Waits for an initialisation under way, which holds the memory hot-plug lock. */
  async settled(): Promise<void> {
    await this.#running?.catch(() => undefined);
  }

  /** The module is not initialised any more. */
  lost(why: Reason): void {
    this.state = 'disabled';
    this.enabled = null;
    this.#usable = null;
    this.#gone = why;
  }

  /** Shuts an initialised module down for this boot. */
  shutDown(why: Reason): void {
    if (this.state !== 'initialized') return;
    const { cpus, log } = this.#context;
    shutDownModule(cpus);
    this.lost(why);
    log.err(`TDX module shut down: ${why.text}`, 'tdx-shut-down');
  }

  /** Why TDX is off; null when it is on. */
  get off(): Reason | null {
    return this.enabled === null ? this.whyOff() : null;
  }

  /** Why TDX is not initialised. */
  whyOff(): Reason {
    const failed = this.stages.failed?.reason ?? this.#gone;
    if (failed !== null) return failed;
    return { code: 'tdx-not-initialized', text: 'the module has not been initialised yet', data: {} };
  }

  /** State for a saved machine. */
  save() {
    return {
      detection: this.detection,
      sysinfo: this.sysinfo,
      enabled: this.enabled,
      keyIds: this.keyIds.save(),
      state: this.state,
      stages: this.stages.save(),
      cpuState: this.cpuState.save(),
      reservation: this.reservation.save(),
      gone: this.#gone,
    };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<TdxEnabler['save']>): void {
    this.detection = saved.detection;
    this.sysinfo = deepFreeze(saved.sysinfo);
    this.enabled = saved.enabled;
    this.keyIds = KeyIdPool.restored(saved.keyIds);
    this.state = saved.state;
    this.stages.restore(saved.stages);
    this.cpuState.restore(saved.cpuState, this.#context.cpus);
    this.reservation.restore(saved.reservation);
    this.#gone = saved.gone;
    this.#usable = null;
  }

  async #enableOnce(): Promise<EnabledTdx> {
    if (this.enabled !== null) return this.enabled;
    this.#checkMayEnable();
    const { machine, cpus, allocator, log, hotplug, policy } = this.#context;
    try {
      this.enabled = await enableTdx({
        machine,
        cpus,
        allocator,
        log,
        policy,
        cpuState: this.cpuState,
        memblock: () => hotplug.memblock,
        memoryAdded: () => hotplug.addedSinceBoot,
        detection: this.detection!,
        stages: this.stages,
        releaseReservation: () => this.reservation.release(),
        schedule: () => this.#context.schedule,
        onSysinfo: (info) => {
          this.sysinfo = info;
        },
      });
      this.#usable = null;
      this.state = 'initialized';
    } catch (error) {
      this.state = 'error';
      throw error;
    }
    if (policy.enable === 'primed') this.#prime();
    return this.enabled;
  }

  /** Throws what keeps a TD from being made; TDX is not offered then. */
  #prime(): void {
    try {
      primeTd(this.#context);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.lost(error.reason);
      this.#context.log.err(error.reason.text, error.reason.code);
      throw error;
    }
  }

  #checkMayEnable(): void {
    const { log, policy } = this.#context;
    if (this.detection === null) {
      const why = this.whyOff();
      log.err('TDX not supported by the host platform', 'tdx-unsupported');
      throw new KernelError(
        'ENODEV',
        'tdx-unsupported',
        `TDX is not supported by the host platform: ${why.text}`,
        { why },
      );
    }
    if (this.state !== 'uninitialized') {
      const why = this.whyOff();
      throw new KernelError(
        'EINVAL',
        'tdx-failed-before',
        `TDX initialisation ${this.state === 'error' ? 'failed' : 'was done'} before and is not tried again: ${why.text}`,
        { why },
      );
    }
    if (policy.enable === 'opt-in' && !policy.optedIn) {
      throw new KernelError('ENODEV', 'tdx-not-opted-in', 'TDX is off until use_tdx=on is given');
    }
  }
}
