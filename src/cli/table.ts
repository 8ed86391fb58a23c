/** Tables and wrapped text for terminals of any width. */
import { stripVTControlCharacters } from 'node:util';
import { type Io, style } from './io.ts';

/** One column: its heading and whether its cells are numbers, which align right. @internal */
export interface Column {
  readonly heading: string;
  readonly align?: 'left' | 'right';
}

const GAP = '  ';

/**
 * Prints rows under headings. The last left-aligned column takes what is left of the terminal's width and wraps;
 * when even that does not fit, each row becomes a block of `heading: cell` lines.
 * @internal
 */
export function printTable(io: Io, columns: readonly Column[], rows: readonly (readonly string[])[]): void {
  const widths = columns.map((column, i) =>
    Math.max(column.heading.length, ...rows.map((row) => (row[i] ?? '').length)),
  );
  const last = columns.length - 1;
  const fixed = widths.slice(0, last).reduce((sum, width) => sum + width + GAP.length, 0);
  const room = io.columns - fixed;
  const wraps = columns[last]?.align !== 'right';
  if (room < Math.min(widths[last] ?? 0, wraps ? 20 : Number.POSITIVE_INFINITY)) {
    printBlocks(io, columns, rows);
    return;
  }
  if (wraps) widths[last] = Math.min(widths[last] ?? 0, room);
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) =>
        columns[i]?.align === 'right' ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0),
      )
      .join(GAP)
      .trimEnd();
  io.out(style(io, 'dim', line(columns.map((column) => column.heading))));
  for (const row of rows) {
    const [first = '', ...rest] = wrap(row[last] ?? '', widths[last] ?? 1);
    io.out(line([...row.slice(0, last), first]));
    for (const more of rest) io.out(line([...columns.slice(0, last).map(() => ''), more]));
  }
}

function printBlocks(io: Io, columns: readonly Column[], rows: readonly (readonly string[])[]): void {
  const width = Math.max(...columns.map((column) => column.heading.length));
  for (const [n, row] of rows.entries()) {
    if (n > 0) io.out();
    for (const [i, column] of columns.entries()) {
      printWrapped(io, row[i] ?? '', `${column.heading.padEnd(width)}  `);
    }
  }
}

/** Prints `text` wrapped to the terminal, `lead` before the first line and its width in blanks before the others. @internal */
export function printWrapped(io: Io, text: string, lead = ''): void {
  const indent = visibleLength(lead);
  const lines = wrap(text, Math.max(io.columns - indent, 20));
  for (const [i, part] of lines.entries()) io.out((i === 0 ? lead : ' '.repeat(indent)) + part);
}

/** A blank at which no line may break. @internal */
export const NO_BREAK = '\u00a0';

/**
 * Breaks `text` at blanks into lines of at most `width` visible characters; a longer word stays whole, and so do
 * words joined by NO_BREAK.
 */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && visibleLength(line) + 1 + visibleLength(word) > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line].map((whole) => whole.replaceAll(NO_BREAK, ' '));
}

function visibleLength(text: string): number {
  return stripVTControlCharacters(text).length;
}
