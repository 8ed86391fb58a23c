/** What the tables of kernel log lines say about one kind of line. */
import type { Case, Fact } from '../explanation.ts';

/** Named groups of a matched line. @internal */
export type Groups = Readonly<Record<string, string | undefined>>;

/**
 * One kind of line. The groups `leaf`, `status`, `seamldr`, `errno` and `error` (the text of an errno, with `ioctl` the
 * call that gave it) are explained by themselves; `{name}` in `says` stands for a group.
 * @internal
 */
export interface LogLine {
  readonly name: string;
  /** Matched anywhere in the line, so prefixes and timestamps do not matter. */
  readonly pattern: RegExp;
  readonly says: string;
  readonly cases: readonly Case[];
  /** What follows from the figures in the line. */
  readonly facts?: (groups: Groups) => readonly Fact[];
}
