/** Which pages a VMM adds to a TD before it runs, in which order, and which of them it measures. */
import { type AddressRange, PAGE_4K } from '../abi/address.ts';
import { InputError } from '../abi/input-error.ts';
import type { TdvfImage } from './tdvf/image.ts';
import {
  hasMemory,
  isAdded,
  isAugmented,
  isMeasured,
  memoryOf,
  sectionRule,
  sectionsOf,
  sectionTitle,
  type TdvfSection,
} from './tdvf/section.ts';

/** Pages added one after the other: what one KVM_TDX_INIT_MEM_REGION is told. @public */
export interface TdRegion {
  /** Guest physical address of the first page. */
  readonly gpa: number;
  /** Number of 4 KiB pages. */
  readonly pages: number;
  /** The first bytes of the region; what is behind them is zero. */
  readonly source: Uint8Array;
  /** Measure contents with MR.EXTEND, not only addresses (KVM_TDX_MEASURE_MEMORY_REGION). */
  readonly measure: boolean;
  /** The section it comes from. */
  readonly section: TdvfSection;
}

/** What the VMM itself puts into a TD's memory; what is missing is zero. @public */
export interface VmmContents {
  /** HOB list for the TD_HOB section; `buildTdHob` makes it. */
  readonly hob?: Uint8Array;
  /** Kernel for a Payload section that has no bytes in the image. */
  readonly payload?: Uint8Array;
  /** Its command line, for the PayloadParam section. */
  readonly parameters?: Uint8Array;
}

/** @public */
export interface TdLayout {
  /** In the order in which they are added: that of the section table. */
  readonly regions: readonly TdRegion[];
  /** Memory that the guest accepts after it has started (PAGE.AUG). */
  readonly augmented: readonly AddressRange[];
  /** Where the TD finds its HOB list: RCX of each vCPU; null without a TD_HOB section. */
  readonly hobAddress: number | null;
}

const NOTHING = new Uint8Array(0);

/**
 * Lays out a TD as the image's section table tells. Sections must be as `checkImage` wants them. Throws InputError for
 * contents that their section has no room for.
 * @public
 */
export function layOutTd(image: TdvfImage, contents: VmmContents = {}): TdLayout {
  const regions = image.sections.filter(isAdded).map((section) => ({
    gpa: section.address,
    pages: section.memoryBytes / PAGE_4K,
    source: sourceOf(image, section, contents),
    measure: isMeasured(section),
    section,
  }));
  return {
    regions,
    augmented: image.sections.filter((section) => hasMemory(section) && isAugmented(section)).map(memoryOf),
    hobAddress: sectionsOf(image.sections, 'TD_HOB')[0]?.address ?? null,
  };
}

function sourceOf(image: TdvfImage, section: TdvfSection, contents: VmmContents): Uint8Array {
  const source = chooseSource(image, section, contents);
  if (source.length <= section.memoryBytes) return source;
  throw new InputError(
    `${image.name}: ${sectionTitle(section)} has ${section.memoryBytes} bytes of memory, too few for ${source.length}`,
  );
}

function chooseSource(image: TdvfImage, section: TdvfSection, contents: VmmContents): Uint8Array {
  const { fileOffset, fileBytes } = section;
  const inFile = image.bytes.subarray(fileOffset, fileOffset + fileBytes);
  switch (sectionRule(section)?.source) {
    case 'file':
      return inFile;
    case 'payload':
      return fileBytes > 0 ? inFile : (contents.payload ?? NOTHING);
    case 'hob':
      return contents.hob ?? NOTHING;
    case 'parameters':
      return contents.parameters ?? NOTHING;
    default:
      return NOTHING;
  }
}
