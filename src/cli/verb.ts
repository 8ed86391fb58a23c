/** What a verb is to the command line. */
import type { Io } from './io.ts';

/** Exit codes: done; the answer is no; wrong usage or unreadable input. @internal */
export const EXIT = { done: 0, no: 1, usage: 2 } as const;

/** Values of a verb's options, by their long names in camel case. @internal */
export type Options = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

/** Runs a verb and returns its exit code. @internal */
export type Run = (args: readonly string[], options: Options, io: Io) => Promise<number>;

/** One verb: its place on the command line, and where its code is, loaded only when it runs. @internal */
export interface Verb {
  readonly name: string;
  /** Operands as commander writes them: `<host...>`, `[path]`. */
  readonly operands: string;
  readonly summary: string;
  readonly options: readonly (readonly [flags: string, text: string, times?: 'repeatable'])[];
  /** More for its --help, in lines of at most 80 characters. */
  readonly help?: string;
  /** Operands may start with a hyphen (`-ENOMEM`): what is no option is one. */
  readonly hyphens?: boolean;
  /** Left out of the overview. */
  readonly hidden?: boolean;
  readonly load: () => Promise<{ readonly run: Run }>;
}
