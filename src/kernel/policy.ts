/** Every choice a kernel makes on the TDX host path, as data. */

/**
 * When the module is initialised. `boot`: always, as Linux 7 does; memory is unfragmented but PAMT is spent even
 * if no TD ever runs. `first-user`: when KVM first asks; PAMT is spent on demand, but its contiguous allocation
 * may fail late. `opt-in`: at boot, and only with `use_tdx=on`.
 * @public
 */
export type EnablePolicy = 'boot' | 'first-user' | 'opt-in';

/**
 * What counts as a hole that needs a reserved area. `memblock`: everything in a TDMR that is not TDX memory.
 * `cmr`: only what is outside every CMR, because the module accepts the rest; saves areas on splintered maps.
 * @public
 */
export type HolePolicy = 'memblock' | 'cmr';

/**
 * What follows a failed initialisation. `shutdown`: TDH.SYS.LP.SHUTDOWN on every online CPU (the design of
 * 2022). `leave`: the module stays as it is, half initialised (today's).
 * @public
 */
export type ErrorPolicy = 'shutdown' | 'leave';

/**
 * What happens to memory plugged in while TDX is on. `reject-non-tdx`: going online is refused unless the range
 * lies in the TDX memory list (today's notifier). `reject-at-add`: already the hot-add is refused (proposal of
 * 2024). `winner-takes-all`: with TDX on no memory is added, and with memory added TDX does not come up
 * (proposal of 2022). `allow`: mixed systems; the memory comes online without being TDX-capable.
 * @public
 */
export type HotplugPolicy = 'reject-non-tdx' | 'reject-at-add' | 'winner-takes-all' | 'allow';

/** @public */
export interface KernelPolicy {
  readonly enable: EnablePolicy;
  /** `use_tdx=on` was given; counts only with `enable: 'opt-in'`. */
  readonly optedIn: boolean;
  readonly holes: HolePolicy;
  readonly onError: ErrorPolicy;
  /** Use Dynamic PAMT where the module and the physical address width allow it. */
  readonly dynamicPamt: boolean;
  /** Count legacy persistent memory (e820 type 12) as TDX memory: it may become System RAM later. */
  readonly legacyPmem: boolean;
  readonly hotplug: HotplugPolicy;
  /**
   * Take NUM_CMRS for the number of CMRs. Some modules report 32 and leave the tail entries empty, which then
   * fails initialisation; without trust the list ends at the first empty entry.
   */
  readonly trustCmrCount: boolean;
}

/** Linux 7.2, with the empty CMR entries tolerated. @public */
export const DEFAULT_POLICY: KernelPolicy = {
  enable: 'boot',
  optedIn: false,
  holes: 'memblock',
  onError: 'leave',
  dynamicPamt: false,
  legacyPmem: false,
  hotplug: 'reject-non-tdx',
  trustCmrCount: false,
};

/** Allowed values of each knob, for faces and for sysfs; a boolean knob takes true or false. @public */
export const POLICY_VALUES: { readonly [K in keyof KernelPolicy]: readonly KernelPolicy[K][] } = {
  enable: ['boot', 'first-user', 'opt-in'],
  optedIn: [false, true],
  holes: ['memblock', 'cmr'],
  onError: ['leave', 'shutdown'],
  dynamicPamt: [false, true],
  legacyPmem: [false, true],
  hotplug: ['reject-non-tdx', 'reject-at-add', 'winner-takes-all', 'allow'],
  trustCmrCount: [false, true],
};
