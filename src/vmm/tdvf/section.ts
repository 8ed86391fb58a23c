/** Sections of a TDVF image, and what there is to know of each type (docs/rules/tdvf.md). */
import { type AddressRange, alignDown, hex } from '../../abi/address.ts';

/** Bits of a section's attributes. @public */
export const SECTION_ATTRIBUTE = {
  /** Contents are measured with TDH.MR.EXTEND. */
  mrExtend: 1,
  /** Pages come after the TD runs, by TDH.MEM.PAGE.AUG, and the guest accepts them. */
  pageAug: 2,
} as const;

/** One entry of the section table, as it stands in the image. Sizes and offsets in bytes. @public */
export interface TdvfSection {
  /** Place in the table, from 0: the order in which a VMM adds the sections. */
  readonly index: number;
  /** Number of the type, of `SECTION_TYPE` or unknown. */
  readonly type: number;
  readonly fileOffset: number;
  readonly fileBytes: number;
  /** Guest physical address. */
  readonly address: number;
  readonly memoryBytes: number;
  readonly attributes: number;
}

/**
 * Where the first bytes of a section's memory come from: the file, the VMM's own HOB list, kernel or kernel parameters,
 * or nowhere (zero). `none`: the section describes something and has no memory.
 * @public
 */
export type SectionSource = 'file' | 'hob' | 'payload' | 'parameters' | 'zero' | 'none';

/** Numbers of the types (TD shim specification, table of section types). @public */
export const SECTION_TYPE = {
  BFV: 0,
  CFV: 1,
  TD_HOB: 2,
  TempMem: 3,
  PermMem: 4,
  Payload: 5,
  PayloadParam: 6,
  TD_INFO: 7,
  TD_PARAMS: 8,
} as const;

/** @public */
export type SectionTypeName = keyof typeof SECTION_TYPE;

/** What sections of a type are like. @public */
export interface SectionRule {
  readonly source: SectionSource;
  /** MR.EXTEND: prescribed, left to the image, or against the rules. */
  readonly mrExtend: 'must' | 'may' | 'never';
  /** PAGE.AUG is prescribed; for all others it is against the rules. */
  readonly pageAug?: true;
  /** QEMU builds TDs of images with such sections. */
  readonly qemu?: true;
}

const RULES: Readonly<Record<SectionTypeName, SectionRule>> = {
  BFV: { source: 'file', mrExtend: 'must', qemu: true },
  CFV: { source: 'file', mrExtend: 'never', qemu: true },
  TD_HOB: { source: 'hob', mrExtend: 'never', qemu: true },
  TempMem: { source: 'zero', mrExtend: 'never', qemu: true },
  PermMem: { source: 'zero', mrExtend: 'never', pageAug: true },
  Payload: { source: 'payload', mrExtend: 'may' },
  PayloadParam: { source: 'parameters', mrExtend: 'never' },
  TD_INFO: { source: 'none', mrExtend: 'never' },
  TD_PARAMS: { source: 'none', mrExtend: 'never' },
};

const NAMES = Object.keys(SECTION_TYPE) as SectionTypeName[];

/** The rules for the section's type; undefined for a number that no type has. @public */
export function sectionRule({ type }: Pick<TdvfSection, 'type'>): SectionRule | undefined {
  const name = NAMES[type];
  return name === undefined ? undefined : RULES[name];
}

/** Name of the section's type. @public */
export function sectionName({ type }: Pick<TdvfSection, 'type'>): string {
  return NAMES[type] ?? `type ${type}`;
}

/** The sections of one type. @public */
export function sectionsOf(sections: readonly TdvfSection[], name: SectionTypeName): TdvfSection[] {
  return sections.filter(({ type }) => type === SECTION_TYPE[name]);
}

/** `section 0 (BFV)`. @public */
export function sectionTitle(section: Pick<TdvfSection, 'type' | 'index'>): string {
  return `section ${section.index} (${sectionName(section)})`;
}

/** Names of the attributes that the section has; bits without a name as a number. @public */
export function attributeNames(section: Pick<TdvfSection, 'attributes'>): string[] {
  const reserved = reservedAttributes(section);
  return [
    ...(isMeasured(section) ? ['MR.EXTEND'] : []),
    ...(isAugmented(section) ? ['PAGE.AUG'] : []),
    ...(reserved === 0 ? [] : [hex(reserved)]),
  ];
}

/** The attribute bits that have no meaning. @public */
export function reservedAttributes({ attributes }: Pick<TdvfSection, 'attributes'>): number {
  return alignDown(attributes, 2 * SECTION_ATTRIBUTE.pageAug);
}

/** True when the section's contents are measured. @public */
export function isMeasured({ attributes }: Pick<TdvfSection, 'attributes'>): boolean {
  return (attributes & SECTION_ATTRIBUTE.mrExtend) !== 0;
}

/** True when the section's pages are left to TDH.MEM.PAGE.AUG. @public */
export function isAugmented({ attributes }: Pick<TdvfSection, 'attributes'>): boolean {
  return (attributes & SECTION_ATTRIBUTE.pageAug) !== 0;
}

/** True when the section has memory, added or accepted. @public */
export function hasMemory(section: Pick<TdvfSection, 'type' | 'memoryBytes'>): boolean {
  return section.memoryBytes > 0 && sectionRule(section)?.source !== 'none';
}

/** True when the VMM adds the section's memory before the TD runs. @public */
export function isAdded(section: TdvfSection): boolean {
  return hasMemory(section) && !isAugmented(section);
}

/** Guest physical addresses of the section. @public */
export function memoryOf({ address, memoryBytes }: TdvfSection): AddressRange {
  return { start: address, end: address + memoryBytes };
}

/** Offsets in the file. @public */
export function fileRangeOf({ fileOffset, fileBytes }: TdvfSection): AddressRange {
  return { start: fileOffset, end: fileOffset + fileBytes };
}
