/** A run of a vCPU: what user space chose for it, and how it ends. */
import type { ErrnoName } from '../../abi/errno.ts';
import type { SystemCalls } from '../../kernel/process/system-calls.ts';
import type { MmioDevice, PortDevice } from './devices.ts';
import type { GuestVcpu } from './guest-vcpu.ts';
import type { GuestVm } from './guest-vm.ts';

/** @public */
export interface RunOptions {
  readonly ports?: readonly PortDevice[];
  readonly mmio?: readonly MmioDevice[];
  /**
   * What a memory fault does: `convert` makes the page what the guest takes it for (implicit conversion); `stop` ends the
   * loop, which a VMM does whose guests ask before they convert. Default `stop`.
   */
  readonly onFault?: 'convert' | 'stop';
  /** A conversion gives the memory of the other kind back to the host. Default true. */
  readonly discards?: boolean;
  /** The thread that runs the vCPU; default is the one that built the VM. */
  readonly calls?: SystemCalls;
  /** Hears of every exit, before it is answered. */
  readonly onExit?: (name: string, errno: ErrnoName | null) => void;
}

/** How a vCPU's run ended. `text` is one sentence. @public */
export interface VcpuEnd {
  readonly kind:
    | 'power-off'
    | 'stopped'
    | 'halted'
    | 'shutdown'
    | 'system-event'
    | 'interrupted'
    | 'memory-fault'
    | 'internal-error'
    | 'fail-entry'
    | 'unknown-exit';
  readonly text: string;
  /** Type of a system event, gpa of a memory fault. */
  readonly detail?: number;
}

/** What handlers of exits work on. @internal */
export interface VcpuRun {
  readonly vm: GuestVm;
  readonly vcpu: GuestVcpu;
  readonly options: RunOptions;
  /** Of the last KVM_RUN; null when it succeeded. */
  errno: ErrnoName | null;
  /** The fault that was answered last, so that one which comes again is not answered for ever. */
  lastFault: string | null;
}

/** An exit's handler: null when the guest can go on. @internal */
export type ExitHandler = (run: VcpuRun, union: Uint8Array) => Promise<VcpuEnd | null> | VcpuEnd | null;

/** Where the thread that runs the vCPU makes its system calls. @internal */
export function callsOf({ vm, options }: VcpuRun): { readonly calls: SystemCalls } {
  return { calls: options.calls ?? vm.calls };
}
