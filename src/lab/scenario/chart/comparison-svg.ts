/** A comparison as a drawing: one panel for each measure, one bar for each policy. */
import { formatBytes } from '../../../abi/format-bytes.ts';
import type { ComparisonRow, PolicyComparison } from '../compare.ts';
import type { Counts } from '../engine/measures.ts';
import { formatDuration } from '../language/units.ts';

/** One panel. A null value is drawn as a word instead of a bar. */
interface Panel {
  readonly title: string;
  readonly colour: string;
  readonly value: (row: ComparisonRow) => number | null;
  readonly format: (value: number) => string;
  /** What stands where there is no value. */
  readonly none: string;
}

/** Sum of counts by reason. @internal */
export function total(counts: Counts): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

const PANELS: readonly Panel[] = [
  {
    title: 'TDs refused',
    colour: '#b45309',
    value: ({ measures }) => total(measures.refused),
    format: String,
    none: '',
  },
  {
    title: 'TDs killed',
    colour: '#b91c1c',
    value: ({ measures }) => total(measures.killed),
    format: String,
    none: '',
  },
  {
    title: 'memory unusable',
    colour: '#6d28d9',
    value: ({ measures }) => measures.unusableBytes,
    format: formatBytes,
    none: '',
  },
  {
    title: 'PAMT',
    colour: '#1d4ed8',
    value: ({ measures }) => measures.pamtBytes,
    format: formatBytes,
    none: '',
  },
  {
    title: 'time to first TD',
    colour: '#0f766e',
    value: ({ measures }) => measures.firstTdNs,
    format: formatDuration,
    none: 'no TD',
  },
  {
    title: 'inconsistent starts',
    colour: '#be185d',
    value: ({ measures }) => measures.inconsistent,
    format: String,
    none: '',
  },
];

const LABELS = 170;
const PANEL = 150;
const GAP = 18;
const ROW = 24;
const BAR = 12;
const TOP = 88;
/** Room for the figure after the longest bar. */
const FIGURE = 62;
const MARGIN = 16;
const FONT = 'font-family="DejaVu Sans, Helvetica, Arial, sans-serif"';

/** The SVG document. @public */
export function comparisonSvg({ scenario, title, seed, events, rows }: PolicyComparison): string {
  const width = LABELS + PANELS.length * (PANEL + GAP) + 2 * MARGIN;
  const height = TOP + rows.length * ROW + MARGIN;
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" ${FONT}>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text(MARGIN, 28, title, 'font-size="17" font-weight="bold" fill="#111827"'),
    text(
      MARGIN,
      48,
      `${scenario}: ${events.toLocaleString('en-US')} events, seed ${seed}, the same under every policy`,
      'font-size="12" fill="#6b7280"',
    ),
  ];
  rows.forEach((row, i) => {
    const y = TOP + i * ROW;
    if (i % 2 === 0) lines.push(`<rect x="0" y="${y - 6}" width="${width}" height="${ROW}" fill="#f3f4f6"/>`);
    lines.push(text(MARGIN, y + BAR - 2, row.policy, 'font-size="12" fill="#111827"'));
  });
  PANELS.forEach((panel, i) => {
    lines.push(...drawPanel(panel, rows, MARGIN + LABELS + i * (PANEL + GAP)));
  });
  return `${[...lines, '</svg>'].join('\n')}\n`;
}

function drawPanel(
  { title, colour, value, format, none }: Panel,
  rows: readonly ComparisonRow[],
  x: number,
): string[] {
  const most = Math.max(1, ...rows.map((row) => value(row) ?? 0));
  const axis = `<line x1="${x}" y1="${TOP - 8}" x2="${x}" y2="${TOP + rows.length * ROW - 6}" stroke="#9ca3af"/>`;
  const lines = [text(x, TOP - 16, title, `font-size="12" font-weight="bold" fill="${colour}"`), axis];
  rows.forEach((row, i) => {
    const y = TOP + i * ROW;
    const found = value(row);
    const length = found === null ? 0 : (found / most) * (PANEL - FIGURE);
    if (length > 0) {
      const width = Math.max(1, length).toFixed(1);
      lines.push(`<rect x="${x + 1}" y="${y}" width="${width}" height="${BAR}" rx="2" fill="${colour}"/>`);
    }
    const figure = found === null ? none : found === 0 ? '0' : format(found);
    const shade = found === null || found === 0 ? '#9ca3af' : '#111827';
    lines.push(text(x + length + 6, y + BAR - 2, figure, `font-size="11" fill="${shade}"`));
  });
  return lines;
}

function text(x: number, y: number, words: string, style: string): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${style}>${escapeXml(words)}</text>`;
}

function escapeXml(words: string): string {
  return words.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
