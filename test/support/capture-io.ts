/** An Io that keeps what a verb prints. */
import type { Io } from '../../src/cli/io.ts';

export interface CapturedIo extends Io {
  readonly lines: string[];
  readonly errors: string[];
}

export function captureIo(columns = 100): CapturedIo {
  const lines: string[] = [];
  const errors: string[] = [];
  return {
    lines,
    errors,
    columns,
    colour: false,
    out: (line = '') => void lines.push(...line.split('\n')),
    err: (line) => void errors.push(line),
  };
}
