/** Every choice a kernel makes on the TDX host path, as one value per knob; `KNOBS` says what each value means. */

/** When the module is initialised. @public */
export type EnablePolicy = 'boot' | 'first-user' | 'opt-in' | 'primed';

/** Which memory becomes TDX memory. @public */
export type TdxMemoryPolicy = 'boot-ram' | 'boot-ram-and-pmem' | 'cmr' | 'nodes';

/** What happens to memory that is plugged in. @public */
export type HotplugPolicy =
  | 'reject-non-tdx'
  | 'refuse-all'
  | 'reject-at-add'
  | 'winner-takes-all'
  | 'allow'
  | 'separate-zone'
  | 'separate-node';

/** What an allocation for a TD does. @public */
export type TdAllocationPolicy = 'trust' | 'check' | 'constrain' | 'retry';

/** Where PAMTs lie, and when their memory is taken. @public */
export type PamtPlacement = 'local' | 'spread' | 'reserved';

/** What counts as a hole that needs a reserved area. @public */
export type HolePolicy = 'memblock' | 'cmr';

/** What follows a failed SEAMCALL. @public */
export type ErrorPolicy = 'leave' | 'shutdown' | 'kill-td' | 'refuse';

/** What happens to the module when another kernel is started. @public */
export type KexecPolicy = 'disable-module' | 'flush' | 'refuse';

/** Which kinds of sleep a TDX host allows. @public */
export type SuspendPolicy = 'allow-idle-only' | 'refuse';

/** What happens to a processor that is plugged in. @public */
export type CpuHotAddPolicy = 'offline-only' | 'refuse';

/** What follows when memory inside a CMR is plugged in or taken away. @public */
export type CmrRemovalPolicy = 'error' | 'bug';

/** @public */
export interface KernelPolicy {
  readonly enable: EnablePolicy;
  /** `use_tdx=on` was given; counts only with `enable: 'opt-in'`. */
  readonly optedIn: boolean;
  readonly tdxMemory: TdxMemoryPolicy;
  /** Nodes of `tdxMemory: 'nodes'`. */
  readonly tdxNodes: readonly number[];
  readonly hotplug: HotplugPolicy;
  readonly tdAllocation: TdAllocationPolicy;
  /** Use Dynamic PAMT where the module and the physical address width allow it. */
  readonly dynamicPamt: boolean;
  readonly pamtPlacement: PamtPlacement;
  readonly holes: HolePolicy;
  readonly onError: ErrorPolicy;
  readonly kexec: KexecPolicy;
  readonly suspend: SuspendPolicy;
  readonly cpuHotAdd: CpuHotAddPolicy;
  readonly cmrRemoval: CmrRemovalPolicy;
  /** Take NUM_CMRS for the number of CMRs; without trust the list ends at the first empty entry. */
  readonly trustCmrCount: boolean;
}

/** A knob's name. @public */
export type KnobName = keyof KernelPolicy;

/** Linux 7.2, with the empty CMR entries tolerated. @public */
export const DEFAULT_POLICY: KernelPolicy = {
  enable: 'boot',
  optedIn: false,
  tdxMemory: 'boot-ram',
  tdxNodes: [],
  hotplug: 'reject-non-tdx',
  tdAllocation: 'trust',
  dynamicPamt: false,
  pamtPlacement: 'local',
  holes: 'memblock',
  onError: 'leave',
  kexec: 'disable-module',
  suspend: 'allow-idle-only',
  cpuHotAdd: 'offline-only',
  cmrRemoval: 'error',
  trustCmrCount: false,
};
