/** Where a verb writes: text lines, with the terminal's width and whether it takes colour. */

/** @public */
export interface Io {
  /** One line of results. */
  readonly out: (line?: string) => void;
  /** One line for the person, not for a program reading the results. */
  readonly err: (line: string) => void;
  readonly columns: number;
  readonly colour: boolean;
}

/** Width assumed where output is not a terminal: what fits an editor and a mail. */
const DEFAULT_COLUMNS = 100;

/** Standard output and error; colour only on a terminal that has not asked for none (NO_COLOR). @internal */
export function processIo(): Io {
  const { stdout } = process;
  // A reader that stops early (head, less) is no error of ours.
  stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    process.stderr.write(`tdxlab: cannot write the output: ${error.message}\n`);
    process.exit(2);
  });
  return {
    out: (line = '') => void stdout.write(`${line}\n`),
    err: (line) => void process.stderr.write(`${line}\n`),
    // A terminal that was never told its size has none.
    columns: (stdout.isTTY && stdout.columns) || DEFAULT_COLUMNS,
    colour: stdout.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb',
  };
}

const STYLES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 } as const;

/** Wraps `text` in a style where the output takes colour. @internal */
export function style(io: Io, name: keyof typeof STYLES, text: string): string {
  return io.colour ? `\x1b[${STYLES[name]}m${text}\x1b[0m` : text;
}
