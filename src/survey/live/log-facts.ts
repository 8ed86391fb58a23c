/** What the kernel's log says, with its lines. */
import { InputError } from '../../abi/input-error.ts';
import type { Evidence } from '../evidence.ts';
import { LogReader } from '../log-reader.ts';

/** @public */
export interface LogFacts {
  /** Lines of the last boot. */
  readonly lines: readonly string[];
  /** It begins where the boot began, so that what is not in it was not printed. */
  readonly whole: boolean;
  readonly evidence: Evidence;
  /** A line with figures that no machine can have: the rest is not read. */
  readonly damage?: string;
}

const BANNER = /\bLinux version \d/;

/** @internal */
export const LOG_SOURCE = 'kernel log';

/** @internal */
export function parseLog(text: string): LogFacts {
  const all = text.split('\n').filter((line) => line !== '');
  const start = all.findLastIndex((line) => BANNER.test(line));
  const lines = all.slice(Math.max(start, 0));
  const reader = new LogReader(LOG_SOURCE);
  let damage: string | undefined;
  try {
    for (const [i, line] of lines.entries()) reader.read(line, Math.max(start, 0) + i + 1);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    damage = error.message;
  }
  const evidence = reader.finish();
  return { lines, whole: start >= 0, evidence, ...(damage === undefined ? {} : { damage }) };
}
