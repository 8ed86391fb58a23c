/** A VM and its vCPUs as the hypervisor keeps them, out of the host's reach. */
import { createRegisters, type Registers } from '../abi/registers.ts';
import type { GuestEvent, GuestExit } from '../machine/guest-code.ts';
import type { GuestStage2 } from './guest-stage2.ts';

/** @public */
export interface HypVm {
  readonly handle: number;
  /** The host gives pages to it for good, instead of lending them. */
  readonly isProtected: boolean;
  readonly stage2: GuestStage2;
  /** The host's HOST_VM page, lent and pinned. */
  readonly hostPfn: number;
  /** Donated page with its state. */
  readonly statePfn: number;
  /** vCPUs that the host announced. */
  readonly maxVcpus: number;
  readonly vcpus: HypVcpu[];
  /** Being torn down: no vCPU can be loaded, pages can be reclaimed. */
  isDying: boolean;
}

/** A guest's hypercall that the host must see before the guest goes on. @public */
export interface PendingCall {
  readonly call: number;
  readonly gfn: number;
  /** CALL_NEEDS; the guest repeats the call unless it is `nothing`. */
  readonly needs: number;
}

/** @public */
export interface HypVcpu {
  readonly vm: HypVm;
  readonly index: number;
  /** First donated page with its state; its address tells vCPUs apart. */
  readonly statePfn: number;
  /** The host's HOST_VCPU page, lent and pinned. */
  readonly hostPfn: number;
  readonly regs: Registers;
  rip: bigint;
  inject: GuestEvent | null;
  /** Pages for stage-2 tables, donated by the host. */
  readonly memcache: number[];
  /** Logical processor it is loaded on, or null. */
  loadedOn: number | null;
  /** The exit that the host is dealing with. */
  exit: GuestExit | null;
  pendingCall: PendingCall | null;
  /** What the host read for the access that exited. */
  emulated: Uint8Array | null;
  /** It ran before: the host's registers no longer count, but where an exit lets them. */
  hasRun: boolean;
}

/** A vCPU that has not run. @internal */
export function createVcpu(vm: HypVm, index: number, statePfn: number, hostPfn: number): HypVcpu {
  return {
    vm,
    index,
    statePfn,
    hostPfn,
    regs: createRegisters(),
    rip: 0n,
    inject: null,
    memcache: [],
    loadedOn: null,
    exit: null,
    pendingCall: null,
    emulated: null,
    hasRun: false,
  };
}
