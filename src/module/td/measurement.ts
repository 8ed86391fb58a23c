/** A running SHA-384 over what a TD is built from (module facts 8). */
import { createHash, type Hash } from 'node:crypto';
import type { PhysicalMemory } from '../../machine/memory.ts';
import type { TdxModule } from '../tdx-module.ts';
import { MRTD_CONTEXT_VERSION, TDCS } from './layout.ts';
import type { TrustDomain } from './trust-domain.ts';

/** Bytes of a measurement register. @public */
export const MEASUREMENT_BYTES = 48;
/** Bytes that one MR.EXTEND measures. @public */
export const EXTEND_CHUNK = 256;
const BLOCK_BYTES = 128;
const GPA_OFFSET = 16;

/** SHA-384 of the parts, one after the other. @public */
export function sha384(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash('sha384');
  for (const part of parts) hash.update(part);
  return hash.digest();
}

function prefilledBlock(name: string): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES);
  block.set(new TextEncoder().encode(name));
  return block;
}

const PAGE_ADD_BLOCK = prefilledBlock('MEM.PAGE.ADD');
const EXTEND_BLOCK = prefilledBlock('MR.EXTEND');

/**
 * The measurement of a TD under construction. It remembers what it has hashed, because a running hash cannot be
 * written down and a half-built TD can.
 * @public
 */
export class TdMeasurement {
  #hash: Hash = createHash('sha384');
  #message = new Uint8Array(4096);
  #length = 0;

  /** Everything measured so far. */
  get message(): Uint8Array {
    return this.#message.subarray(0, this.#length);
  }

  /** Goes on from a `message` that was taken from another measurement. */
  restore(message: Uint8Array): void {
    this.#hash = createHash('sha384');
    this.#length = 0;
    this.#update(message);
  }

  /** MEM.PAGE.ADD of the page at `gpa`. */
  addPage(gpa: number): void {
    this.#updateBlock(PAGE_ADD_BLOCK, gpa);
  }

  /** MR.EXTEND of the 256 bytes at `gpa`. */
  extend(gpa: number, chunk: Uint8Array): void {
    this.#updateBlock(EXTEND_BLOCK, gpa);
    this.#update(chunk);
  }

  /** MRTD. Nothing can be measured afterwards. */
  finalize(): Uint8Array {
    return this.#hash.digest();
  }

  #updateBlock(block: Uint8Array, gpa: number): void {
    new DataView(block.buffer).setBigUint64(GPA_OFFSET, BigInt(gpa), true);
    this.#update(block);
  }

  #update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    const end = this.#length + bytes.length;
    if (end > this.#message.length) {
      const grown = new Uint8Array(2 * end);
      grown.set(this.message);
      this.#message = grown;
    }
    this.#message.set(bytes, this.#length);
    this.#length = end;
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
  const measurement = measurementsOf(module.machine.memory).get(td.address);
  if (measurement === undefined) throw new Error('a TD under construction has no running measurement');
  return measurement;
}

/** False when the module must stay compatible with an older one whose running hash it cannot continue. @public */
export function isMeasurementCompatible(module: TdxModule, { tdcs }: TrustDomain): boolean {
  return !module.updateCompatibility || tdcs.u16(TDCS.MRTD_CONTEXT_VERSION) === MRTD_CONTEXT_VERSION;
}
