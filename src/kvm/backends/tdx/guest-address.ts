/** Guest addresses as a TD says them: one bit tells shared from private. */
import type { TrustDomain } from './trust-domain.ts';

/** @internal */
export function isPrivateGpa({ sharedBit }: TrustDomain, gpa: bigint): boolean {
  return ((gpa >> BigInt(sharedBit!)) & 1n) === 0n;
}

/** The address in KVM's slots. @internal */
export function withoutSharedBit({ sharedBit }: TrustDomain, gpa: bigint): number {
  return Number(gpa & ~(1n << BigInt(sharedBit!)));
}

/** An address that the TD can have: no bit above the shared one. @internal */
export function isLegalGpa({ sharedBit }: TrustDomain, gpa: bigint): boolean {
  return gpa >> BigInt(sharedBit! + 1) === 0n;
}
