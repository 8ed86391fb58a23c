/** A running SHA-384 over what a TD is built from (module facts 8). */
import { createHash } from 'node:crypto';
import { PAGE_4K } from '../../abi/address.ts';
import {
  EXTEND_CHUNK,
  MEASUREMENT_RECORD,
  MEASUREMENT_RECORD_BYTES,
  putMeasurementRecord,
} from '../../abi/measurement.ts';
import type { PhysicalMemory } from '../../machine/memory.ts';
import type { TdxModule } from '../tdx-module.ts';
import { MRTD_CONTEXT_VERSION, TDCS } from './layout.ts';
import type { TrustDomain } from './trust-domain.ts';

/** SHA-384 of the parts, one after the other. @public */
export function sha384(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash('sha384');
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/**
 * The measurement of a TD under construction. It is kept as the message to hash, because a running hash cannot be
 * written down and a half-built TD can. As a part of the TDCS, the message lies among the machine's frames.
 * @public
 */
export class TdMeasurement {
  readonly #memory: PhysicalMemory;
  /** Frames of the message, and how many bytes each has. */
  readonly #frames: number[] = [];
  readonly #lengths: number[] = [];

  constructor(memory: PhysicalMemory) {
    this.#memory = memory;
  }

  /** A copy of everything measured so far. */
  get message(): Uint8Array {
    const parts = this.#parts();
    const message = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const part of parts) {
      message.set(part, at);
      at += part.length;
    }
    return message;
  }

  /** Goes on from a `message` that was taken from another measurement. */
  restore(message: Uint8Array): void {
    for (let at = 0; at < message.length; at += PAGE_4K) {
      const part = message.subarray(at, at + PAGE_4K);
      const place = this.#room(part.length);
      this.#memory.frames.bytes.set(part, place);
      this.#grow(part.length);
    }
  }

  /** MEM.PAGE.ADD of the page at `gpa`. */
  addPage(gpa: number): void {
    const place = this.#room(MEASUREMENT_RECORD_BYTES);
    putMeasurementRecord(this.#memory.frames.words32, place, MEASUREMENT_RECORD.pageAdd, gpa);
    this.#grow(MEASUREMENT_RECORD_BYTES);
  }

  /** MR.EXTEND of the 256 bytes at `gpa`, which are at `address` under `keyId`. Throws MachineCheck. */
  extend(gpa: number, address: number, keyId: number): void {
    const place = this.#room(MEASUREMENT_RECORD_BYTES + EXTEND_CHUNK);
    this.#memory.readToFrame(address, EXTEND_CHUNK, keyId, place + MEASUREMENT_RECORD_BYTES);
    putMeasurementRecord(this.#memory.frames.words32, place, MEASUREMENT_RECORD.extend, gpa);
    this.#grow(MEASUREMENT_RECORD_BYTES + EXTEND_CHUNK);
  }

  /** MRTD. */
  digest(): Uint8Array {
    return sha384(...this.#parts());
  }

  /** Gives the frames of the message back: nothing is measured any more. */
  release(): void {
    for (const frame of this.#frames) this.#memory.frames.release(frame);
  }

  #parts(): readonly Uint8Array[] {
    const { bytes } = this.#memory.frames;
    return this.#frames.map((frame, i) => bytes.subarray(frame, frame + this.#lengths[i]!));
  }

  /** Where in the frames the next `bytes` bytes of the message go. */
  #room(bytes: number): number {
    const last = this.#frames.length - 1;
    if (last >= 0 && this.#lengths[last]! + bytes <= PAGE_4K)
      return this.#frames[last]! + this.#lengths[last]!;
    const frame = this.#memory.frames.allocateUnset();
    this.#frames.push(frame);
    this.#lengths.push(0);
    return frame;
  }

  #grow(bytes: number): void {
    this.#lengths[this.#lengths.length - 1]! += bytes;
  }
}

/** Running measurements of every machine's half-built TDs, by the address of the TDR. */
const RUNNING = new WeakMap<PhysicalMemory, Map<number, TdMeasurement>>();

/**
 * The running measurements of the TDs in `memory`, by the address of the TDR. They stand for a part of the TDCS, so
 * they belong to the machine's memory and outlive the module image.
 * @public
 */
export function measurementsOf(memory: PhysicalMemory): Map<number, TdMeasurement> {
  const known = RUNNING.get(memory);
  if (known !== undefined) return known;
  const measurements = new Map<number, TdMeasurement>();
  RUNNING.set(memory, measurements);
  return measurements;
}

/** The running measurement of a TD that is being built. @public */
export function runningMeasurement(module: TdxModule, td: TrustDomain): TdMeasurement {
  td.measurement ??= module.measurements.get(td.address);
  if (td.measurement === undefined) throw new Error('a TD under construction has no running measurement');
  return td.measurement;
}

/** False when the module must stay compatible with an older one whose running hash it cannot continue. @public */
export function isMeasurementCompatible(module: TdxModule, { tdcs }: TrustDomain): boolean {
  return !module.updateCompatibility || tdcs.u16(TDCS.MRTD_CONTEXT_VERSION) === MRTD_CONTEXT_VERSION;
}

/** Ends the measurement of a TD: it is final, or goes. @public */
export function endMeasurement(module: TdxModule, td: TrustDomain): void {
  module.measurements.get(td.address)?.release();
  module.measurements.delete(td.address);
  td.measurement = undefined;
}
