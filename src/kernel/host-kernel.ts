/** The host kernel as far as TDX goes: what faces, KVM and the lab see of it. */
import type { AddressRange } from '../abi/address.ts';
import { KernelError, type Reason } from '../abi/errno.ts';
import type { Machine } from '../machine/machine.ts';
import type { PageAllocator } from './allocator.ts';
import { Balloon } from './balloon.ts';
import { bootMemory } from './boot-memory.ts';
import { Cpu } from './cpu.ts';
import { CpuCalls } from './cpu-calls.ts';
import type { Detection } from './detect.ts';
import { Devices } from './devices.ts';
import type { EnabledTdx } from './enable.ts';
import { MemoryHotplug, type OnlineZone } from './hotplug.ts';
import { checkGoingOnline } from './hotplug-rules.ts';
import { type KernelConfig, type KernelConfigHints, kernelConfig } from './kernel-config.ts';
import type { KeyIdPool } from './keyid-pool.ts';
import { LogRing } from './log.ts';
import type { MemblockRegion } from './memblock.ts';
import type { TdxMemoryBlock } from './memlist.ts';
import { type MemoryBlock, memoryBlocks } from './memory-blocks.ts';
import { type MemoryFailure, type MemoryUser, memoryFailure } from './memory-failure.ts';
import type { MemoryNotifiers } from './memory-notifier.ts';
import { type ModuleImageFile, updateModule } from './module-update.ts';
import { PageRefs } from './page-refs.ts';
import { DEFAULT_POLICY, type KernelPolicy } from './policy/kernel-policy.ts';
import { KNOBS } from './policy/knobs.ts';
import { type KexecOutcome, kexec, type SleepState, suspend } from './power.ts';
import type { FileObject } from './process/file-object.ts';
import { ObjectCounts } from './process/object-counts.ts';
import type { SchedulingPoint } from './scheduling.ts';
import type { Stage } from './stages.ts';
import type { TdxSysinfo } from './sysinfo.ts';
import { type TdAdvice, tdAdvice } from './td-advice.ts';
import { TdMemory } from './td-memory.ts';
import type { Tdmr } from './tdmr.ts';
import { type TdxCapability, tdxCapability } from './tdx-capability.ts';
import { TdxEnabler, type TdxState } from './tdx-enabler.ts';
import { prepareVmx } from './vmx.ts';

/** @public */
export interface HostKernelOptions {
  readonly policy?: Partial<KernelPolicy>;
  readonly hints?: KernelConfigHints;
  /** Instead of what `hints` imply. */
  readonly config?: KernelConfig;
}

/** @public */
export class HostKernel {
  readonly machine: Machine;
  readonly config: KernelConfig;
  readonly log: LogRing;
  readonly cpus: Cpu[];
  readonly allocator: PageAllocator;
  readonly hotplug: MemoryHotplug;
  /** Device files that can be opened. */
  readonly devices = new Devices();
  /** Objects with a life of their own: processes, and open files by kind. */
  readonly openObjects = new ObjectCounts();
  readonly pageRefs: PageRefs;
  /** Where pages that go to the module come from. */
  readonly tdMemory: TdMemory;
  /** Who is asked whether they have memory that fails. */
  readonly memoryUsers = new Set<MemoryUser>();
  readonly balloon: Balloon;
  /** What memfd_create with MFD_INACCESSIBLE makes; null where the kernel does not have it. */
  inaccessibleMemfd: ((name: string, flags: number) => FileObject) | null = null;
  /** The lab's scheduler, called at every scheduling point. */
  schedule: SchedulingPoint | null = null;
  #policy: KernelPolicy;
  readonly #tdx: TdxEnabler;
  readonly #cpuCalls: CpuCalls;
  #booted = false;
  #inodes = 0;
  #stopped: Reason | null = null;

  constructor(machine: Machine, options: HostKernelOptions = {}) {
    this.machine = machine;
    this.config = options.config ?? kernelConfig(options.hints);
    const optedIn = this.config.useTdx ?? DEFAULT_POLICY.optedIn;
    this.#policy = { ...DEFAULT_POLICY, optedIn, ...options.policy };
    this.log = new LogRing(machine.clock);
    this.cpus = machine.lps.map((lp) => new Cpu(lp));
    const { memblock, allocator } = bootMemory(machine.description, this.config);
    this.allocator = allocator;
    this.pageRefs = new PageRefs(machine, this.allocator);
    this.balloon = new Balloon(this.allocator);
    this.hotplug = new MemoryHotplug(memblock, this.allocator, this.log, () => ({
      memlist: this.memlist,
      cmrs: this.sysinfo?.cmrs ?? null,
      policy: this.#policy.hotplug,
      cmrRemoval: this.#policy.cmrRemoval,
      plugged: machine.presentMemory,
      stop: (why) => this.#stop(why),
    }));
    this.#tdx = new TdxEnabler(this);
    this.#cpuCalls = new CpuCalls(this, this.#tdx);
    this.tdMemory = new TdMemory({
      allocator: this.allocator,
      clock: machine.clock,
      tdAllocation: () => this.#policy.tdAllocation,
      usable: () => this.#tdx.usable,
    });
  }

  /** The kernel that `save` was called on, again, on another machine in the same state. */
  static restored(machine: Machine, saved: ReturnType<HostKernel['save']>): HostKernel {
    const { config, policy } = saved;
    const kernel = new HostKernel(machine, { config, policy });
    kernel.#restore(saved);
    return kernel;
  }

  get policy(): KernelPolicy {
    return this.#policy;
  }

  get state(): TdxState {
    return this.#tdx.state;
  }

  get stages(): readonly Stage[] {
    return this.#tdx.stages.list;
  }

  /** What early detection found; null where TDX is off. */
  get detection(): Detection | null {
    return this.#tdx.detection;
  }

  /** Everything the module reported, frozen; null until it was asked. Known even when a later stage failed. */
  get sysinfo(): TdxSysinfo | null {
    return this.#tdx.sysinfo;
  }

  /** KeyIDs for guests; an empty pool where TDX is off. */
  get keyIds(): KeyIdPool {
    return this.#tdx.keyIds;
  }

  /** TDMRs of the initialised module; none before. */
  get tdmrs(): readonly Tdmr[] {
    return this.enabled?.tdmrs ?? [];
  }

  /** TDX memory, fixed by initialisation; empty before. */
  get memlist(): readonly TdxMemoryBlock[] {
    return this.enabled?.memlist ?? [];
  }

  /** Memory TDs can use: the TDX memory less what a TDMR reserves as a hole, with holes from CMRs. */
  get tdxMemory(): readonly (AddressRange & { readonly node: number })[] {
    return this.#tdx.usable;
  }

  /** What initialisation made; null before and after a failure. */
  get enabled(): EnabledTdx | null {
    return this.#tdx.enabled;
  }

  /** Pages set aside at boot for the PAMTs of a later initialisation. */
  get reservedPamtPages(): number {
    return this.#tdx.reservation.pages;
  }

  get memblock(): readonly MemblockRegion[] {
    return this.hotplug.memblock;
  }

  get memoryNotifiers(): MemoryNotifiers {
    return this.hotplug.notifiers;
  }

  /** Changes a knob. Throws EBUSY for one that initialisation has used already; `KNOBS` says which may change any time. */
  setPolicy<K extends keyof KernelPolicy>(knob: K, value: KernelPolicy[K]): void {
    const begun = this.state !== 'uninitialized' || this.isEnabling;
    if (begun && KNOBS[knob].changes === 'before-enabling') {
      throw new KernelError(
        'EBUSY',
        'policy-in-use',
        `the knob ${knob} cannot change once TDX initialisation has begun`,
        { knob },
      );
    }
    this.#policy = { ...this.#policy, [knob]: value };
  }

  /**
   * Boots: CPUs, detection, and under the policies `boot` and (opted in) `opt-in` initialisation. A kernel boots
   * without TDX too: what went wrong is in `stages` and in the log.
   */
  async boot(): Promise<void> {
    for (const cpu of this.cpus.slice(0, this.config.maxCpus)) cpu.online = true;
    for (const cpu of this.cpus) prepareVmx(cpu, this.allocator);
    this.#listen();
    await this.#tdx.boot(() => this.memoryNotifiers.register(this.#notifier));
  }

  /**
   * Initialises the module, once: callers that come meanwhile share the outcome, later ones get it again. Throws
   * ENODEV where TDX is off or not opted in, the failing stage's errno the first time and EINVAL after that.
   */
  enableTdx(): Promise<EnabledTdx> {
    return this.#tdx.enable();
  }

  /** What a first user such as KVM calls. Under `first-user` it initialises; otherwise it throws ENODEV unless done. */
  getTdx(): Promise<TdxSysinfo> {
    return this.#tdx.get();
  }

  /** Brings a CPU up. Throws EINVAL for one that is online or absent, or what TDX's online callback throws. */
  async cpuOnline(index: number): Promise<void> {
    await this.schedule?.('cpu-online');
    this.#cpuCalls.online(index);
  }

  /** Takes a CPU down. Throws EINVAL for one that is offline or absent, EBUSY where TDX or the kernel needs it. */
  async cpuOffline(index: number): Promise<void> {
    await this.schedule?.('cpu-offline');
    this.#cpuCalls.offline(index);
  }

  /**
   * Starts another kernel, or after a crash the one set aside for it: this one stops. Throws EPERM where the policy
   * refuses that; `KexecOutcome` says what the next one finds.
   */
  kexec(options: { readonly crash?: boolean } = {}): KexecOutcome {
    this.#checkRuns();
    const outcome = kexec(this, this.#tdx, options.crash ?? false);
    this.#tdx.lost(outcome.why);
    this.#stop({ code: 'kexec', text: 'another kernel was started', data: { outcome } });
    return outcome;
  }

  /** Shuts the module down for this boot: every TD is lost. Does nothing where TDX is off. */
  shutDownTdx(why: Reason): void {
    this.#tdx.shutDown(why);
  }

  /** Puts the host to sleep. Throws EOPNOTSUPP, EPERM with the reason, EBUSY when it is asleep. */
  suspend(sleep: SleepState): void {
    this.#checkRuns();
    suspend(this, this.#tdx, sleep);
  }

  /** Wakes it from `s2idle`. Throws EINVAL when it is not asleep. */
  resume(): void {
    this.#checkRuns();
    this.#tdx.cpuState.resume();
  }

  /** Replaces the module while TDs live. Throws ENODEV, EINVAL, EBUSY, ENOMEM, EIO. */
  async updateModule(image: ModuleImageFile): Promise<void> {
    await this.#memoryCall('module-update');
    updateModule(this, this.#tdx, image);
  }

  /** The machine reports that memory at `address` has failed. */
  async memoryFailure(address: number): Promise<MemoryFailure> {
    this.#checkRuns();
    return memoryFailure(this, this.memoryUsers, address);
  }

  /** Has `hook` called when a CPU is about to go offline, before TDX is asked: KVM takes its vCPUs off it then. */
  onCpuOffline(hook: (cpu: Cpu) => void): void {
    this.#cpuCalls.onOffline(hook);
  }

  /** dax/kmem binds a device's memory, which becomes System RAM, offline. Throws ENODEV, EBUSY, EINVAL, EPERM. */
  async kmemAdd(range: AddressRange): Promise<void> {
    await this.#memoryCall('kmem-add');
    this.hotplug.kmemAdd(range);
  }

  /** dax/kmem lets go of memory that is offline. Throws EBUSY, EINVAL. */
  async kmemRemove(range: AddressRange): Promise<void> {
    await this.#memoryCall('kmem-remove');
    this.hotplug.kmemRemove(range);
  }

  /** Brings hot-added memory online. Throws EPERM where it is not TDX memory, EINVAL where it is not offline. */
  async onlineMemory(range: AddressRange, zone?: OnlineZone): Promise<void> {
    await this.#memoryCall('memory-online');
    this.hotplug.goOnline(range, zone);
  }

  /** Takes memory offline. Throws EBUSY where pages in it cannot move. */
  async offlineMemory(range: AddressRange): Promise<void> {
    await this.#memoryCall('memory-offline');
    this.hotplug.goOffline(range);
  }

  /** Which nodes, zones and memory blocks TDs can use, and why others not. */
  tdxCapability(): TdxCapability {
    return tdxCapability({
      zones: this.allocator.zones(),
      blocks: this.memoryBlocks(),
      usable: this.tdxMemory,
      off: this.#tdx.off,
    });
  }

  /** The memory policy with which a TD is neither killed nor refused while TDX memory is free. */
  tdAdvice(): TdAdvice {
    return tdAdvice(this.tdxCapability(), this.#tdx.off, this.#policy.tdAllocation);
  }

  /** Memory blocks with their state and whether TDs can use them. */
  memoryBlocks(): readonly MemoryBlock[] {
    const { hotplug } = this;
    return memoryBlocks({ hotplug, zones: this.allocator.zones(), tdx: this.tdxMemory, off: this.#tdx.off });
  }

  /** Number for a new inode. */
  nextInode(): number {
    return ++this.#inodes;
  }

  /** An initialisation is under way: a time at which the kernel cannot be saved. */
  get isEnabling(): boolean {
    return this.#tdx.isRunning;
  }

  /** State for a saved machine. */
  save() {
    return {
      config: this.config,
      log: this.log.save(),
      cpus: this.cpus.map((cpu) => cpu.save()),
      allocator: this.allocator.save(),
      balloon: this.balloon.save(),
      hotplug: this.hotplug.save(),
      policy: this.#policy,
      tdx: this.#tdx.save(),
      tdMemory: this.tdMemory.save(),
      booted: this.#booted,
      stopped: this.#stopped,
    };
  }

  #restore(saved: ReturnType<HostKernel['save']>): void {
    this.log.restore(saved.log);
    // A processor plugged in before the kernel booted is none of its CPUs.
    this.cpus.length = saved.cpus.length;
    saved.cpus.forEach((cpu, index) => {
      this.cpus[index]!.restore(cpu);
    });
    this.allocator.restore(saved.allocator);
    this.balloon.restore(saved.balloon);
    this.hotplug.restore(saved.hotplug);
    this.#tdx.restore(saved.tdx);
    this.tdMemory.restore(saved.tdMemory);
    this.#stopped = saved.stopped;
    if (saved.booted) this.#listen();
    if (saved.hotplug.notifiers > 0) this.memoryNotifiers.register(this.#notifier);
  }

  /** Hears of hot-plug from the firmware. */
  #listen(): void {
    this.#booted = true;
    this.machine.onAcpiEvent((event) => {
      if (this.#stopped !== null) return;
      // Memory waits for the end of an initialisation under way, which holds the memory hot-plug lock.
      if (event.type === 'cpu-add') this.#cpuCalls.added(event.lp);
      else if (!this.isEnabling) this.hotplug.handle(event);
      else void this.#tdx.settled().then(() => this.hotplug.handle(event));
    });
  }

  readonly #notifier = (range: AddressRange): void =>
    checkGoingOnline(range, this.memlist, this.#policy.hotplug);

  /** Why the kernel stopped, such as by BUG or for another kernel; null while it runs. */
  get stopped(): Reason | null {
    return this.#stopped;
  }

  /** Memory calls wait for an initialisation under way, which holds the memory hot-plug lock. */
  async #memoryCall(point: string): Promise<void> {
    this.#checkRuns();
    await this.schedule?.(point);
    await this.#tdx.settled();
  }

  /** Throws EIO once the kernel has stopped. */
  #checkRuns(): void {
    if (this.#stopped === null) return;
    const why = this.#stopped;
    throw new KernelError('EIO', 'kernel-stopped', `the kernel has stopped: ${why.text}`, { why });
  }

  #stop(why: Reason): void {
    this.#stopped ??= why;
    this.log.err(`kernel stopped: ${why.text}`, 'kernel-stopped');
  }
}
