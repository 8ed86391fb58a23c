/** A running SHA-384 over what a TD is built from (module facts 8). */
import { createHash } from 'node:crypto';
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
const TWO_32 = 0x1_0000_0000;
/** Pieces of a message grow from one page's measurement, so that a small TD costs little. */
const FIRST_PIECE_BYTES = BLOCK_BYTES + 16 * (BLOCK_BYTES + EXTEND_CHUNK);
const LAST_PIECE_BYTES = 32 * FIRST_PIECE_BYTES;

/** SHA-384 of the parts, one after the other. @public */
export function sha384(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash('sha384');
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/** A block's name as the words that it begins with, up to the GPA. */
function nameWords(name: string): Uint32Array {
  const bytes = new Uint8Array(GPA_OFFSET);
  bytes.set(new TextEncoder().encode(name));
  return new Uint32Array(bytes.buffer);
}

const PAGE_ADD = nameWords('MEM.PAGE.ADD');
const EXTEND = nameWords('MR.EXTEND');

/**
 * The measurement of a TD under construction. It is kept as the message to hash, in large pieces: a running hash
 * cannot be written down and a half-built TD can, and many small updates cost more than one large one.
 * @public
 */
export class TdMeasurement {
  /** What was measured before `#piece`. */
  readonly #before: Uint8Array[] = [];
  #piece = new Uint8Array(0);
  #words = new Uint32Array(0);
  #length = 0;

  /** A copy of everything measured so far. */
  get message(): Uint8Array {
    const pieces = this.#pieces();
    const message = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const piece of pieces) {
      message.set(piece, at);
      at += piece.length;
    }
    return message;
  }

  /** Goes on from a `message` that was taken from another measurement. */
  restore(message: Uint8Array): void {
    this.#before.push(message);
  }

  /** MEM.PAGE.ADD of the page at `gpa`. */
  addPage(gpa: number): void {
    this.#append(PAGE_ADD, gpa, BLOCK_BYTES);
  }

  /** MR.EXTEND of the 256 bytes at `gpa`. */
  extend(gpa: number, chunk: Uint8Array): void {
    const at = this.#append(EXTEND, gpa, BLOCK_BYTES + EXTEND_CHUNK);
    this.#piece.set(chunk, at + BLOCK_BYTES);
  }

  /** MRTD. */
  finalize(): Uint8Array {
    return sha384(...this.#pieces());
  }

  #pieces(): readonly Uint8Array[] {
    return [...this.#before, this.#piece.subarray(0, this.#length)];
  }

  /** Makes room for `bytes` bytes and puts a block at their start. Returns where in `#piece` that is. */
  #append(name: Uint32Array, gpa: number, bytes: number): number {
    const at = this.#length + bytes <= this.#piece.length ? this.#length : this.#beginPiece();
    const words = this.#words;
    const word = at / 4;
    for (let i = 0; i < name.length; i++) words[word + i] = name[i]!;
    words[word + GPA_OFFSET / 4] = gpa;
    words[word + GPA_OFFSET / 4 + 1] = gpa / TWO_32;
    this.#length = at + bytes;
    return at;
  }

  #beginPiece(): number {
    const size = Math.min(Math.max(2 * this.#piece.length, FIRST_PIECE_BYTES), LAST_PIECE_BYTES);
    this.#before.push(this.#piece.subarray(0, this.#length));
    this.#piece = new Uint8Array(size);
    this.#words = new Uint32Array(this.#piece.buffer);
    this.#length = 0;
    return 0;
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
