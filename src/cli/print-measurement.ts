/** The sections of a TDVF image and its MRTDs as text. */
import { hex } from '../abi/address.ts';
import { formatBytes } from '../abi/format-bytes.ts';
import type { ImageMeasurement } from '../vmm/measure-image.ts';
import type { PageOrder } from '../vmm/mrtd.ts';
import type { TdvfImage } from '../vmm/tdvf/image.ts';
import { attributeNames, sectionName } from '../vmm/tdvf/section.ts';
import { type Io, style } from './io.ts';
import { printTable, printWrapped } from './table.ts';

/** Who adds pages in which order (docs/rules/tdvf.md). */
const USERS: Readonly<Record<PageOrder, string>> = {
  'one-pass':
    'each page added, then extended: Linux since 6.16, so QEMU since 10.1; the TD shim specification',
  'two-pass': "a section's pages all added, then all extended: Ubuntu's TDX preview with QEMU 8.2",
};

/**
 * Prints everything but what is fatal, which the command line says as it ends. `matches` are the orders that give an
 * expected MRTD, if one was.
 * @internal
 */
export function printMeasurement(
  io: Io,
  image: TdvfImage,
  { mrtd, findings }: ImageMeasurement,
  matches?: readonly PageOrder[],
): void {
  const { name, bytes, descriptorOffset } = image;
  const title = style(io, 'bold', name);
  printWrapped(io, `${title}: ${formatBytes(bytes.length)}, TDX metadata at ${hex(descriptorOffset)}`);
  io.out();
  printSections(io, image);
  for (const [order, digits] of mrtd ?? []) printMrtd(io, order, digits);
  const warnings = findings.filter(({ fatal }) => !fatal);
  if (warnings.length > 0) io.out();
  for (const { text } of warnings) printWrapped(io, text, `${style(io, 'yellow', 'warning')}: `);
  if (mrtd === null || matches === undefined) return;
  io.out();
  if (matches.length > 0)
    io.out(style(io, 'green', `The expected MRTD is that of ${matches.join(' and ')}.`));
  else io.out(style(io, 'red', `The expected MRTD is not that of ${[...mrtd.keys()].join(' or ')}.`));
}

function printSections(io: Io, { sections }: TdvfImage): void {
  const right = 'right' as const;
  printTable(
    io,
    [
      { heading: '#', align: right },
      { heading: 'section' },
      { heading: 'at in file', align: right },
      { heading: 'in file', align: right },
      { heading: 'guest address', align: right },
      { heading: 'in memory', align: right },
      { heading: 'attributes' },
    ],
    sections.map((section) => [
      String(section.index),
      sectionName(section),
      section.fileBytes === 0 ? '-' : hex(section.fileOffset),
      section.fileBytes === 0 ? '-' : formatBytes(section.fileBytes),
      hex(section.address),
      formatBytes(section.memoryBytes),
      attributeNames(section).join(' ') || '-',
    ]),
  );
}

/** The digits in one line where there is room, for copying; else in two. */
function printMrtd(io: Io, order: PageOrder, digits: string): void {
  const indent = '  ';
  const half = digits.length / 2;
  const fits = io.columns >= indent.length + digits.length;
  io.out();
  printWrapped(io, USERS[order], `${style(io, 'bold', `MRTD ${order}`)}  `);
  printWrapped(io, fits ? digits : `${digits.slice(0, half)} ${digits.slice(half)}`, indent);
}
