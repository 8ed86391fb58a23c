/** What MRTD a TD made of an image has. */
import { mrtdOf, PAGE_ORDERS, type PageOrder } from './mrtd.ts';
import { layOutTd } from './td-layout.ts';
import { checkImage, type Finding } from './tdvf/check-image.ts';
import type { TdvfImage } from './tdvf/image.ts';

/** @public */
export interface ImageMeasurement {
  /** 96 hexadecimal digits by order, those asked for; null when a finding is fatal. */
  readonly mrtd: ReadonlyMap<PageOrder, string> | null;
  readonly findings: readonly Finding[];
}

/** Checks and measures an image; contents that come from the VMM are taken as zero. @public */
export function measureImage(image: TdvfImage, orders: readonly PageOrder[] = PAGE_ORDERS): ImageMeasurement {
  const findings = checkImage(image);
  if (findings.some(({ fatal }) => fatal)) return { mrtd: null, findings };
  const { regions } = layOutTd(image);
  const mrtd = orders.map((order) => [order, Buffer.from(mrtdOf(regions, order)).toString('hex')] as const);
  return { mrtd: new Map(mrtd), findings };
}
