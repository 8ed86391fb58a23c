/** struct file: an open file, counted by whoever needs it open: descriptors, areas, kernel code. */
import { O } from '../../abi/system-call-flags.ts';
import type { FileObject } from './file-object.ts';
import type { ObjectCounts } from './object-counts.ts';

/** How a file is open; by default as the files that ioctls make: read and write, closed on exec, not seekable. @public */
export type OpenOptions = Partial<Pick<OpenFile, 'flags' | 'seekable'>>;

/** @public */
export class OpenFile {
  readonly object: FileObject;
  /** O flags it was opened with. */
  readonly flags: number;
  /** pread and pwrite reach it: it was opened at a path or by memfd_create, not made by an ioctl. */
  readonly seekable: boolean;
  /** Where read and write go on. */
  position = 0n;
  #refs = 1;
  readonly #counts: ObjectCounts;

  /** Opens with one reference, the caller's. */
  constructor(object: FileObject, counts: ObjectCounts, options: OpenOptions = {}) {
    this.object = object;
    this.flags = options.flags ?? O.RDWR | O.CLOEXEC;
    this.seekable = options.seekable ?? false;
    this.#counts = counts;
    counts.add(object.kind);
  }

  get refs(): number {
    return this.#refs;
  }

  /** One more reference. */
  get(): this {
    if (this.#refs === 0) throw new Error(`a closed ${this.object.kind} was used`);
    this.#refs++;
    return this;
  }

  /** One reference less; the last one releases the object. */
  async put(): Promise<void> {
    if (this.#refs === 0) throw new Error(`a ${this.object.kind} was closed twice`);
    this.#refs--;
    if (this.#refs > 0) return;
    this.#counts.remove(this.object.kind);
    await this.object.release();
  }
}
