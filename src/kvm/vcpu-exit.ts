/** Why a vCPU came back, as KVM's common code sees it whatever the technology. Backends decode into this. */
import type { ErrnoName } from '../abi/errno.ts';
import type { GuestAccess } from '../machine/guest-code.ts';

/**
 * Finishes an exit at the next KVM_RUN. `answer` is what user space left in the run page: a read's bytes for ports and
 * MMIO, the union's bytes for hypercalls and TDVMCALLs. Returns the exit that follows at once, if one does: the next
 * chunk of a request.
 * @public
 */
export type Completion = ((answer: Uint8Array) => void) | ((answer: Uint8Array) => VcpuExit | undefined);

/** An exit that user space answers; the guest goes on behind the instruction when it is complete. @public */
export interface AnsweredExit {
  readonly complete: Completion;
}

/** @public */
export type VcpuExit =
  /** Handled in the kernel: enter again. */
  | { readonly kind: 'handled' }
  /** An interrupt of the host: a scheduling point, then enter again. */
  | { readonly kind: 'interrupt' }
  /** The guest halted and waits for an interrupt. */
  | { readonly kind: 'halt' }
  /** A second-stage fault for the fault path. `gpa` has no shared bit. */
  | {
      readonly kind: 'page-fault';
      readonly gpa: number;
      /** What the guest asked for; null where the technology does not tell and the attributes decide. */
      readonly isPrivate: boolean | null;
      readonly access: 'read' | 'write' | 'execute';
      /** For emulation where no slot is; null where the host cannot see the instruction. */
      readonly emulate: (GuestAccess & AnsweredExit) | null;
    }
  /** Emulated access outside the slots, at most 8 bytes; `bytes` are what a write wrote. */
  | ({
      readonly kind: 'mmio';
      readonly gpa: number;
      readonly isWrite: boolean;
      readonly bytes: Uint8Array;
    } & AnsweredExit)
  /** Port access; `bytes` are what OUT wrote, or as many zeroes as IN wants. */
  | ({
      readonly kind: 'io';
      readonly isWrite: boolean;
      readonly port: number;
      readonly bytes: Uint8Array;
    } & AnsweredExit)
  /** Hypercall that user space has enabled. */
  | ({
      readonly kind: 'hypercall';
      readonly nr: number;
      readonly args: readonly bigint[];
      readonly isLongMode: boolean;
    } & AnsweredExit)
  /** A TDVMCALL for user space; `words` follow flags and number in the union. */
  | ({ readonly kind: 'tdx'; readonly nr: number; readonly words: readonly bigint[] } & AnsweredExit)
  | { readonly kind: 'system-event'; readonly type: number; readonly data: readonly bigint[] }
  | { readonly kind: 'shutdown' }
  | { readonly kind: 'fail-entry'; readonly hardwareReason: bigint }
  | { readonly kind: 'internal-error'; readonly suberror: number; readonly data: readonly bigint[] }
  /** KVM_RUN ends with -errno; RIP is unchanged. */
  | {
      readonly kind: 'memory-fault';
      readonly gpa: number;
      readonly sizeBytes: number;
      readonly isPrivate: boolean;
      readonly errno: ErrnoName;
      readonly code: string;
      readonly text: string;
    };
