/** What a CPU tells about a VM exit (Intel SDM volume 3, chapter 28 and appendix C; TDCALL, SEAMCALL: TDX). */

/** Basic exit reasons, bits 15:0 of the exit reason. @public */
export const EXIT = {
  EXCEPTION_OR_NMI: 0,
  EXTERNAL_INTERRUPT: 1,
  TRIPLE_FAULT: 2,
  INIT: 3,
  SMI: 6,
  NMI_WINDOW: 8,
  TASK_SWITCH: 9,
  CPUID: 10,
  GETSEC: 11,
  HLT: 12,
  INVD: 13,
  RDPMC: 15,
  RSM: 17,
  VMCALL: 18,
  VMCLEAR: 19,
  VMLAUNCH: 20,
  VMPTRLD: 21,
  VMPTRST: 22,
  VMREAD: 23,
  VMRESUME: 24,
  VMWRITE: 25,
  VMXOFF: 26,
  VMXON: 27,
  CR_ACCESS: 28,
  IO: 30,
  RDMSR: 31,
  WRMSR: 32,
  ENTRY_FAILED_GUEST_STATE: 33,
  ENTRY_FAILED_MSR: 34,
  MWAIT: 36,
  MONITOR: 39,
  ENTRY_FAILED_MACHINE_CHECK: 41,
  C_STATE_SMI: 42,
  EPT_VIOLATION: 48,
  EPT_MISCONFIGURATION: 49,
  INVEPT: 50,
  INVVPID: 53,
  WBINVD: 54,
  XSETBV: 55,
  APIC_WRITE: 56,
  VMFUNC: 59,
  ENCLS: 60,
  PML_FULL: 62,
  PCONFIG: 65,
  ENCLV: 70,
  ENQCMD: 72,
  ENQCMDS: 73,
  BUS_LOCK: 74,
  NOTIFICATION: 75,
  SEAMCALL: 76,
  TDCALL: 77,
} as const;

/** Bits of the exit reason above the basic reason. @public */
export const EXIT_BUS_LOCK = 1 << 26;
/** @public */
export const EXIT_ENTRY_FAILED = 0x8000_0000;

/** One VM exit. Fields that an exit has nothing for are zero. @public */
export interface VmExit {
  /** All 32 bits of the exit reason. */
  readonly reason: number;
  readonly qualification: bigint;
  readonly linearAddress: bigint;
  readonly physicalAddress: bigint;
  readonly interruptionInfo: number;
  readonly errorCode: number;
  readonly instructionLength: number;
  readonly instructionInfo: number;
  readonly idtVectoringInfo: number;
}

/** What comes of a VM exit: the guest goes on, goes on with an event injected, or the host runs. @public */
export type GuestOutcome = 'resumed' | 'injected' | 'exited';

/**
 * What a handler did: answered the exit or injected an event (`handled`), stopped for an event of the host so that the
 * instruction runs again (`interrupted`), injected a #VE in place of the instruction (`reentered`), or went to the host
 * (`left`).
 * @internal
 */
export type ExitResult = 'handled' | 'interrupted' | 'reentered' | 'left';
