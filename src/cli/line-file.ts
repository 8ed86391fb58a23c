/** A text file written line by line, which appears under its name only once it is whole. */
import { closeSync, openSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { InputError } from '../abi/input-error.ts';

/** Bytes gathered before a write: large enough that millions of lines cost few system calls. */
const CHUNK = 1 << 20;

/** Every method throws InputError when the file cannot be written. @internal */
export class LineFile {
  readonly #path: string;
  /** What is written to until the file is whole; a device or pipe is written to directly. */
  readonly #partial: string;
  #descriptor: number | null = null;
  #pending = '';

  constructor(path: string) {
    this.#path = path;
    this.#partial = path;
    const there = path === '' ? undefined : statSync(path, { throwIfNoEntry: false });
    if (path === '' || there?.isDirectory()) throw this.#refusal('it is not the name of a file');
    if (there === undefined || there.isFile()) this.#partial = `${path}.partial`;
    this.#try(() => {
      this.#descriptor = openSync(this.#partial, 'w');
    });
  }

  write(line: string): void {
    this.#pending += `${line}\n`;
    if (this.#pending.length >= CHUNK) this.#flush();
  }

  /** Gives the file its name. */
  finish(): void {
    this.#flush();
    this.#try(() => {
      this.#close();
      if (this.#partial !== this.#path) renameSync(this.#partial, this.#path);
    });
  }

  /** Leaves nothing behind. */
  discard(): void {
    this.#close();
    if (this.#partial !== this.#path) rmSync(this.#partial, { force: true });
  }

  #flush(): void {
    this.#try(() => writeFileSync(this.#descriptor!, this.#pending));
    this.#pending = '';
  }

  #close(): void {
    if (this.#descriptor !== null) closeSync(this.#descriptor);
    this.#descriptor = null;
  }

  #try(work: () => void): void {
    try {
      work();
    } catch (error) {
      throw this.#refusal((error as Error).message);
    }
  }

  #refusal(why: string): InputError {
    return new InputError(`cannot write ${this.#path === '' ? "''" : this.#path}: ${why}`);
  }
}
