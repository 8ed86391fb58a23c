/**
 * The interface between a logical processor and whatever executes guests that no TDX module runs: a scripted kernel, an
 * emulator. It is the counterpart of the module's guest runner.
 */
import type { Registers } from '../abi/registers.ts';
import type { LogicalProcessor } from './lp.ts';

/** Fills the machine's slot for guest code. @public */
export interface GuestCode {
  /** Runs the guest from the registers and RIP of `context`, `inject` included, until something must go to the host. */
  run(context: GuestContext): GuestExit;
}

/** An exception or interrupt that VM entry delivers. @public */
export interface GuestEvent {
  readonly vector: number;
  readonly errorCode?: number;
}

/** Where the second stage of translation leads: a host physical address and the key of the access. @public */
export interface GuestPhysical {
  readonly address: number;
  readonly keyId: number;
}

/** One virtual CPU as the processor sees it while it is entered. @public */
export interface GuestContext {
  /** Identity: physical address of its VMCS, VMCB or the hypervisor's vCPU structure. */
  readonly address: number;
  /** Number of the vCPU in its VM, which is its APIC id. */
  readonly index: number;
  readonly lp: LogicalProcessor;
  readonly regs: Registers;
  rip: bigint;
  /** What VM entry injects; whoever executes the guest takes it and leaves null. */
  inject: GuestEvent | null;
  /** Bytes that the host's emulation read for the access that exited last, which is thereby complete; else null. */
  emulated: Uint8Array | null;
  /**
   * Second stage of translation, with its ownership checks. When it faults: the exit that the access comes to, or the
   * exception that the guest gets in its place (SEV-SNP: #VC for a page that the guest has not validated).
   */
  translate(gpa: number, access: GuestAccessKind): GuestPhysical | GuestExit | GuestEvent;
  /** Instructions of one technology: 'pvalidate', 'vmgexit', 'hvc'. Processors without it raise #UD. */
  instruction(name: string, operands: Registers): GuestExit | GuestEvent | 'done';
  /**
   * False for an exit that the processor performs itself, such as an MSR that is not intercepted; an exception that the
   * guest gets instead of the exit (SEV-ES: #VC, for the guest to tell the host what it wants it to see).
   */
  intercepts(exit: GuestExit): boolean | GuestEvent;
}

/** @public */
export type GuestAccessKind = 'read' | 'write' | 'execute';

/** A memory access as a decoder of the exiting instruction finds it. @public */
export interface GuestAccess {
  readonly isWrite: boolean;
  readonly lengthBytes: number;
  /** What a write stores. */
  readonly bytes?: Uint8Array;
  /** The processor accessed memory to deliver an event. */
  readonly isEventDelivery?: boolean;
}

/** Why the processor left the guest. Fields that an exit has nothing for are zero. @public */
export interface GuestExit {
  /** Basic exit reason, abi/vm-exit.ts, on every technology. */
  readonly reason: number;
  readonly qualification: bigint;
  readonly gpa: number;
  readonly instructionLengthBytes: number;
  /** The guest accessed the address as private; absent where the technology does not tell. */
  readonly isPrivate?: boolean;
  /** Set for accesses to memory, so that the host can emulate them. */
  readonly access?: GuestAccess;
}
