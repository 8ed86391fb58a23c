/** Buffers of the host that the module reads or writes under a shared KeyID. */
import type { Registers } from '../abi/registers.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import {
  hkidOf,
  isInSeamRange,
  isSharedHpa,
  type PlatformSnapshot,
  type SharedHpaRules,
} from './platform.ts';
import { plainHpa } from './td/operands.ts';

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

/** `sharedBuffer` for the address in `register`: without a KeyID, as most are, it costs no bigint. @internal */
export function sharedBufferIn(
  platform: PlatformSnapshot,
  regs: Registers,
  register: number,
  align: number,
): SharedBuffer | undefined {
  const address = plainHpa(platform, regs.d[2 * register]!, regs.d[2 * register + 1]!, align);
  if (address === undefined) return sharedBuffer(platform, regs.q[register]!, align);
  return isInSeamRange(platform, address, align) ? undefined : { address, keyId: 0 };
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
