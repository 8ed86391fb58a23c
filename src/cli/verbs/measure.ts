/** `tdxlab measure [IMAGE]`: MRTD of a TD made of a firmware image, before there is one. */
import { InputError } from '../../abi/input-error.ts';
import { MEASUREMENT_BYTES } from '../../abi/measurement.ts';
import { type ImageMeasurement, measureImage } from '../../vmm/measure-image.ts';
import { PAGE_ORDERS, type PageOrder } from '../../vmm/mrtd.ts';
import { SAMPLE_IMAGE } from '../../vmm/sample-image.ts';
import type { TdvfImage } from '../../vmm/tdvf/image.ts';
import { attributeNames, sectionName } from '../../vmm/tdvf/section.ts';
import { toJson } from '../format.ts';
import { readImage } from '../image-file.ts';
import { printMeasurement } from '../print-measurement.ts';
import { EXIT, type Run } from '../verb.ts';

/** Names of the orders in JSON. */
const KEYS: Readonly<Record<PageOrder, string>> = { 'one-pass': 'onePass', 'two-pass': 'twoPass' };

export const run: Run = async ([path = SAMPLE_IMAGE], options, io) => {
  const orders = parseOrders(String(options.pageOrder ?? 'both'));
  const expected = options.expect === undefined ? undefined : parseMrtd(String(options.expect));
  const image = readImage(path);
  const measurement = measureImage(image, orders);
  const { mrtd, findings } = measurement;
  const matches = orders.filter((order) => mrtd !== null && mrtd.get(order) === expected);
  if (options.json === true)
    io.out(toJson({ ...asJson(image, measurement), ...(expected && { expected, matches }) }));
  else printMeasurement(io, image, measurement, expected === undefined ? undefined : matches);
  if (mrtd === null) throw new InputError(`${path}: no MRTD: ${findings.find(({ fatal }) => fatal)!.text}`);
  return expected !== undefined && matches.length === 0 ? EXIT.no : EXIT.done;
};

function parseOrders(text: string): readonly PageOrder[] {
  if (text === 'both') return PAGE_ORDERS;
  const order = PAGE_ORDERS.find((name) => name === text);
  if (order !== undefined) return [order];
  throw new InputError(`--page-order takes ${PAGE_ORDERS.join(', ')} or both, not '${text}'`);
}

function parseMrtd(text: string): string {
  const digits = 2 * MEASUREMENT_BYTES;
  if (text.length === digits && /^[0-9a-f]*$/i.test(text)) return text.toLowerCase();
  throw new InputError(`--expect takes an MRTD of ${digits} hexadecimal digits, not ${JSON.stringify(text)}`);
}

function asJson(image: TdvfImage, { mrtd, findings }: ImageMeasurement): object {
  const { name, bytes, descriptorOffset, foundBy, sections } = image;
  return {
    image: { name, bytes: bytes.length, metadataOffset: descriptorOffset, foundBy },
    mrtd: mrtd && Object.fromEntries([...mrtd].map(([order, digits]) => [KEYS[order], digits])),
    sections: sections.map((section) => ({
      type: sectionName(section),
      fileOffset: section.fileOffset,
      fileBytes: section.fileBytes,
      address: section.address,
      memoryBytes: section.memoryBytes,
      attributes: attributeNames(section),
    })),
    warnings: findings.map(({ text }) => text),
  };
}
