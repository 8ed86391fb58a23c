/** What a CPU tells about a VM exit (Intel SDM volume 3, chapter 28). */

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
