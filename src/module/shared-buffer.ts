/** Buffers of the host that the module reads or writes under a shared KeyID. */
import type { LogicalProcessor } from '../machine/lp.ts';
import { hkidOf, isSharedHpa, type SharedHpaRules } from './platform.ts';

/** @internal */
export interface SharedBuffer {
  readonly address: number;
  readonly keyId: number;
}

/** The buffer at `hpa`, KeyID bits included, or undefined when it is misaligned, in the SEAM range or private. @internal */
export function sharedBuffer(platform: SharedHpaRules, hpa: bigint, align: number): SharedBuffer | undefined {
  if (!isSharedHpa(platform, hpa, align)) return undefined;
  return { address: Number(hpa & ~platform.hkidMask), keyId: hkidOf(platform, hpa) };
}

/** @internal */
export function readShared(
  lp: LogicalProcessor,
  { address, keyId }: SharedBuffer,
  length: number,
): Uint8Array {
  return lp.machine.memory.read(address, length, keyId);
}

/** @internal */
export function writeShared(lp: LogicalProcessor, { address, keyId }: SharedBuffer, bytes: Uint8Array): void {
  lp.machine.memory.write(address, bytes, keyId);
}
