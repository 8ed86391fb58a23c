/** What the firmware knows of one guest. On hardware it lies encrypted in the guest's context page. */
import { SNP_GUEST_STATE } from './commands.ts';
import { emptyLaunchDigest } from './launch-digest.ts';

/** @public */
export interface GuestContextState {
  /** SNP_GUEST_STATE. */
  state: number;
  /** ASID it is bound to; null while it is not active. */
  asid: number | null;
  policy: bigint;
  launchDigest: Uint8Array;
  gosvw: Uint8Array;
  hostData: Uint8Array;
  /** Keys of messages between the guest and the firmware, by VMPL. */
  readonly messageKeys: readonly Uint8Array[];
}

/** @internal */
export function newGuestContext(messageKeys: readonly Uint8Array[]): GuestContextState {
  return {
    state: SNP_GUEST_STATE.INIT,
    asid: null,
    policy: 0n,
    launchDigest: emptyLaunchDigest(),
    gosvw: new Uint8Array(16),
    hostData: new Uint8Array(32),
    messageKeys,
  };
}
