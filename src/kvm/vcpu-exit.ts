/** Why a vCPU came back, as KVM's common code sees it whatever the technology. Backends decode into this. */
import type { GuestAccess } from '../machine/guest-code.ts';

/** Completes an exit at the next KVM_RUN with what user space left in the run page. @public */
export type Completion = (answer: Uint8Array) => void | Promise<void>;

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
      readonly emulate: (GuestAccess & { readonly complete: Completion }) | null;
    }
  /** Emulated access outside the slots. `complete` gets what a read read. */
  | {
      readonly kind: 'mmio';
      readonly gpa: number;
      readonly isWrite: boolean;
      readonly bytes: Uint8Array;
      readonly complete: Completion;
    }
  /** Port access; `bytes` are what OUT wrote, or as many zeroes as IN wants. */
  | {
      readonly kind: 'io';
      readonly isWrite: boolean;
      readonly port: number;
      readonly sizeBytes: number;
      readonly bytes: Uint8Array;
      readonly complete: Completion;
    }
  /** Hypercall that user space has enabled. `complete` gets the 64-bit return value. */
  | {
      readonly kind: 'hypercall';
      readonly nr: number;
      readonly args: readonly bigint[];
      readonly isLongMode: boolean;
      readonly complete: Completion;
    }
  /** A TDVMCALL for user space. `words` are the union's 64-bit words; `complete` gets them back as bytes. */
  | {
      readonly kind: 'tdx';
      readonly nr: number;
      readonly words: readonly bigint[];
      readonly complete: Completion;
    }
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
      readonly errno: 'EFAULT' | 'EHWPOISON';
      readonly code: string;
      readonly text: string;
    };
