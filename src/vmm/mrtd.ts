/** MRTD of a TD that does not exist yet, from the pages that a VMM would add. */
import { createHash, type Hash } from 'node:crypto';
import { PAGE_4K } from '../abi/address.ts';
import {
  EXTEND_CHUNK,
  MEASUREMENT_RECORD,
  MEASUREMENT_RECORD_BYTES,
  putMeasurementRecord,
} from '../abi/measurement.ts';
import type { TdRegion } from './td-layout.ts';

/**
 * The orders in which VMMs add and measure the pages of a region: each page added and extended before the next, or all
 * added and then all extended. docs/rules/tdvf.md tells who does which.
 * @public
 */
export const PAGE_ORDERS = ['one-pass', 'two-pass'] as const;

/** @public */
export type PageOrder = (typeof PAGE_ORDERS)[number];

/** The regions, one after the other, as the module measures them in this order. @public */
export function mrtdOf(
  regions: readonly Pick<TdRegion, 'gpa' | 'pages' | 'source' | 'measure'>[],
  order: PageOrder,
): Uint8Array {
  const message = new Message(createHash('sha384'));
  for (const region of regions) {
    for (let page = 0; page < region.pages; page++) {
      message.record(MEASUREMENT_RECORD.pageAdd, region.gpa + page * PAGE_4K);
      if (region.measure && order === 'one-pass') extendPage(message, region, page);
    }
    if (!region.measure || order === 'one-pass') continue;
    for (let page = 0; page < region.pages; page++) extendPage(message, region, page);
  }
  return message.digest();
}

function extendPage(message: Message, { gpa, source }: Pick<TdRegion, 'gpa' | 'source'>, page: number): void {
  for (let at = page * PAGE_4K; at < (page + 1) * PAGE_4K; at += EXTEND_CHUNK) {
    message.record(MEASUREMENT_RECORD.extend, gpa + at);
    message.chunk(source, at);
  }
}

/** Hashed at once; a call of the hash costs as much as hashing a kilobyte. */
const BATCH_BYTES = 64 * 1024;

/** The message that is hashed, gathered in batches. */
class Message {
  readonly #hash: Hash;
  readonly #words = new Uint32Array(BATCH_BYTES / 4);
  readonly #bytes = new Uint8Array(this.#words.buffer);
  #used = 0;

  constructor(hash: Hash) {
    this.#hash = hash;
  }

  record(name: readonly number[], gpa: number): void {
    const at = this.#room(MEASUREMENT_RECORD_BYTES);
    putMeasurementRecord(this.#words, at, name, gpa);
  }

  /** The 256 bytes of `source` from `at`, zero behind its end. */
  chunk(source: Uint8Array, at: number): void {
    this.#bytes.set(source.subarray(at, at + EXTEND_CHUNK), this.#room(EXTEND_CHUNK));
  }

  digest(): Uint8Array {
    this.#flush();
    return this.#hash.digest();
  }

  /** Where the next `bytes` bytes go; zero so far. */
  #room(bytes: number): number {
    if (this.#used + bytes > BATCH_BYTES) this.#flush();
    const at = this.#used;
    this.#used += bytes;
    return at;
  }

  #flush(): void {
    this.#hash.update(this.#bytes.subarray(0, this.#used));
    this.#bytes.fill(0);
    this.#used = 0;
  }
}
