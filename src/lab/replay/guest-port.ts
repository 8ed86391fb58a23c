/** What the replayer needs of the floor that runs TDs. */
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Mismatch } from './mismatch.ts';
import type { GuestLine, GuestStateLine, HeldLock, SeamcallLine } from './vector-lines.ts';

/** Runs the guest side of a sequence. Differences come back without line numbers. @public */
export interface GuestPort {
  /** True while a TD runs on `lp`, after a TDH.VP.ENTER that entered it. */
  isInGuest(lp: LogicalProcessor): boolean;
  /** Compares the guest's state at its first instruction with an `entered` line. */
  compareEntry(lp: LogicalProcessor, line: SeamcallLine): readonly Mismatch[];
  /** Delivers one VM exit of the guest and compares what comes of it. */
  deliverExit(lp: LogicalProcessor, line: GuestLine): readonly Mismatch[];
  /** Applies what the guest changed in its own state without an exit. */
  changeState(lp: LogicalProcessor, line: GuestStateLine): void;
  /** Holds or releases a lock of a TD; false for an object it does not have. */
  holdLock?(lock: HeldLock): boolean;
  /** Sets the result of report verification; false where that is not modelled. */
  setVerifyResult?(result: number): boolean;
}
