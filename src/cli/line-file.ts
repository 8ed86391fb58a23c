/** A text file written line by line, which appears under its name only once it is whole. */
import { closeSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { InputError } from '../survey/input-error.ts';

/** Bytes gathered before a write: large enough that millions of lines cost few system calls. */
const CHUNK = 1 << 20;

/** @internal */
export class LineFile {
  readonly #path: string;
  readonly #partial: string;
  readonly #descriptor: number;
  #pending = '';

  /** Throws InputError when the file cannot be made. */
  constructor(path: string) {
    this.#path = path;
    this.#partial = `${path}.partial`;
    try {
      this.#descriptor = openSync(this.#partial, 'w');
    } catch (error) {
      throw new InputError(`cannot write ${path}: ${(error as Error).message}`);
    }
  }

  write(line: string): void {
    this.#pending += `${line}\n`;
    if (this.#pending.length >= CHUNK) this.#flush();
  }

  /** Gives the file its name. */
  finish(): void {
    this.#flush();
    closeSync(this.#descriptor);
    renameSync(this.#partial, this.#path);
  }

  /** Leaves nothing behind. */
  discard(): void {
    closeSync(this.#descriptor);
    rmSync(this.#partial, { force: true });
  }

  #flush(): void {
    writeSync(this.#descriptor, this.#pending);
    this.#pending = '';
  }
}
