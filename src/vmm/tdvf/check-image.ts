/** What is wrong with a section table: by the specification, and for the VMMs there are (docs/rules/tdvf.md). */
import { formatRange, GIB, hex, isAligned, KIB, overlaps, PAGE_4K } from '../../abi/address.ts';
import { formatBytes } from '../../abi/format-bytes.ts';
import type { TdvfImage } from './image.ts';
import {
  fileRangeOf,
  hasMemory,
  isAdded,
  isAugmented,
  isMeasured,
  memoryOf,
  reservedAttributes,
  SECTION_TYPE,
  type SectionTypeName,
  sectionName,
  sectionRule,
  sectionsOf,
  sectionTitle,
  type TdvfSection,
} from './section.ts';

/** @public */
export interface Finding {
  /** Nobody can tell an MRTD: there is none, or it depends on what is not in the image. */
  readonly fatal: boolean;
  /** One sentence. */
  readonly text: string;
}

/** Says no more than that something is odd. */
const warning = (text: string): Finding => ({ fatal: false, text });
const fatal = (text: string): Finding => ({ fatal: true, text });

/** A shared GPA begins where private ones end, in the widest TD: bit 51. */
const PRIVATE_END = 2 ** 51;
/** A TDVF brings a few MiB; whoever adds more than this before the TD runs misread the table. */
const MAX_ADDED_BYTES = GIB;
/** QEMU takes firmware in units of this. */
const QEMU_UNIT = 64 * KIB;
/** Types of which an image has one section at most. */
const ONCE: readonly SectionTypeName[] = ['TD_HOB', 'Payload', 'PayloadParam', 'TD_INFO', 'TD_PARAMS'];
/** Where the first instruction of a TD is. */
const RESET_VECTOR = 0xffff_fff0;

/** Everything found, section by section, then of the image as a whole. @public */
export function checkImage(image: TdvfImage): Finding[] {
  return [...image.sections.flatMap((section) => checkSection(image, section)), ...checkWhole(image)];
}

function checkSection(image: TdvfImage, section: TdvfSection): Finding[] {
  const title = sectionTitle(section);
  const rule = sectionRule(section);
  if (rule === undefined) return [fatal(`${title} has a type that nobody knows, so no VMM loads it`)];
  if (rule.source === 'none') return checkDescription(title, section);
  return [
    ...checkPlace(title, section),
    ...checkFile(image, title, section),
    ...checkAttributes(title, section),
    ...checkSource(title, section),
  ];
}

/** TD_INFO and TD_PARAMS lie within a BFV and have no memory of their own. */
function checkDescription(title: string, section: TdvfSection): Finding[] {
  return section.address === 0 && section.memoryBytes === 0 && section.attributes === 0
    ? []
    : [warning(`${title} asks for memory or attributes, which such sections do not have; they are ignored`)];
}

function checkPlace(title: string, section: TdvfSection): Finding[] {
  const { address, memoryBytes, fileBytes } = section;
  if (!isAligned(address, PAGE_4K)) {
    return [fatal(`${title} begins at ${hex(address)}, which is no address of a 4 KiB page`)];
  }
  if (!isAligned(memoryBytes, PAGE_4K)) {
    return [fatal(`${title} has ${hex(memoryBytes)} bytes of memory, no multiple of 4 KiB`)];
  }
  if (fileBytes > memoryBytes) {
    return [
      fatal(`${title} has ${hex(fileBytes)} bytes in the file, but only ${hex(memoryBytes)} of memory`),
    ];
  }
  if (address + memoryBytes > PRIVATE_END) {
    return [
      fatal(
        `${title} at ${formatRange(memoryOf(section))} reaches beyond ${hex(PRIVATE_END)}, where private memory ends`,
      ),
    ];
  }
  return memoryBytes === 0 ? [warning(`${title} has no memory; KVM refuses to add an empty region`)] : [];
}

function checkFile(image: TdvfImage, title: string, section: TdvfSection): Finding[] {
  const { fileOffset, fileBytes, memoryBytes } = section;
  const { source } = sectionRule(section)!;
  if (source === 'file' && fileBytes === 0) {
    return [warning(`${title} has no bytes in the file; QEMU refuses it, and its memory is zero`)];
  }
  if (source !== 'file' && source !== 'payload') {
    return fileBytes === 0
      ? []
      : [warning(`${title} has bytes in the file, which VMMs do not load; QEMU refuses it`)];
  }
  if (fileOffset + fileBytes > image.bytes.length) return [outsideFile(image, title, section)];
  const findings: Finding[] = [];
  if (fileBytes > 0 && fileBytes < memoryBytes) {
    findings.push(
      warning(
        `${title} has more memory than bytes in the file: the rest is zero, but QEMU goes on reading the file`,
      ),
    );
  }
  if (!isAligned(fileOffset, PAGE_4K)) {
    findings.push(
      warning(
        `${title} begins at ${hex(fileOffset)} of the file, not on a page; QEMU cannot hand it to KVM so`,
      ),
    );
  }
  return findings;
}

function outsideFile(image: TdvfImage, title: string, section: TdvfSection): Finding {
  const text =
    `${title} is outside the file: it takes bytes ${formatRange(fileRangeOf(section))}, ` +
    `and the file ends at ${hex(image.bytes.length)}`;
  // A build in two files: OVMF_VARS first, then OVMF_CODE.
  const isHalf = section.type === SECTION_TYPE.BFV && section.fileBytes === image.bytes.length;
  const hint = isHalf
    ? '; this is the code half of a firmware in two files, put its variables (OVMF_VARS) in front of it'
    : '; the image is cut short or damaged';
  return isMeasured(section) && isAdded(section) ? fatal(text + hint) : warning(text + hint);
}

function checkAttributes(title: string, section: TdvfSection): Finding[] {
  const { mrExtend, pageAug } = sectionRule(section)!;
  const findings: Finding[] = [];
  if (isMeasured(section) && isAugmented(section)) {
    findings.push(
      fatal(
        `${title} has both attributes MR.EXTEND and PAGE.AUG: what is not added before the TD runs cannot be measured`,
      ),
    );
  } else if (isAugmented(section) && !pageAug) {
    findings.push(
      warning(
        `${title} has the attribute PAGE.AUG: its pages are not added, and the firmware starts without them`,
      ),
    );
  } else if (pageAug && !isAugmented(section)) {
    findings.push(
      warning(`${title} lacks the attribute PAGE.AUG: its pages are added before the TD runs, and in MRTD`),
    );
  }
  if (mrExtend === 'must' && !isMeasured(section)) {
    findings.push(
      warning(`${title} lacks the attribute MR.EXTEND: MRTD holds where the firmware is, not what it is`),
    );
  }
  if (mrExtend === 'never' && isMeasured(section)) {
    findings.push(warning(`${title} has the attribute MR.EXTEND, which such sections should not have`));
  }
  const reserved = reservedAttributes(section);
  if (reserved > 0) {
    findings.push(warning(`${title} has the reserved attribute bits ${hex(reserved)}, which are ignored`));
  }
  return findings;
}

/** Contents that come from the VMM and are measured make an MRTD of their own each time. */
function checkSource(title: string, section: TdvfSection): Finding[] {
  const what = {
    hob: "the VMM's list of memory",
    payload: section.fileBytes === 0 ? 'the kernel that the VMM loads' : undefined,
    parameters: "the kernel's command line",
  }[sectionRule(section)!.source as string];
  return what === undefined || !isMeasured(section)
    ? []
    : [warning(`${title} is measured and holds ${what}: MRTD depends on it, and is told for zeroes here`)];
}

function checkWhole(image: TdvfImage): Finding[] {
  return [
    ...checkSize(image),
    ...checkOverlaps(image.sections),
    ...checkParts(image.sections),
    ...checkQemu(image),
  ];
}

function checkSize({ sections }: TdvfImage): Finding[] {
  const added = sections.filter(isAdded).reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  return added <= MAX_ADDED_BYTES
    ? []
    : [
        fatal(
          `the sections add ${formatBytes(added)} before the TD runs, more than the ${formatBytes(MAX_ADDED_BYTES)} that any firmware could need`,
        ),
      ];
}

function checkOverlaps(sections: readonly TdvfSection[]): Finding[] {
  const inMemory = sections.filter(hasMemory).sort((a, b) => a.address - b.address);
  return inMemory.slice(1).flatMap((section, i) => {
    const before = inMemory[i]!;
    return overlaps(memoryOf(before), memoryOf(section))
      ? [
          warning(
            `${sectionTitle(before)} at ${formatRange(memoryOf(before))} and ${sectionTitle(section)} at ` +
              `${formatRange(memoryOf(section))} overlap: a page can be added once, so no VMM builds this TD`,
          ),
        ]
      : [];
  });
}

function checkParts(sections: readonly TdvfSection[]): Finding[] {
  const findings: Finding[] = [];
  const has = (name: SectionTypeName): boolean => sectionsOf(sections, name).length > 0;
  const volumes = sectionsOf(sections, 'BFV');
  if (volumes.length === 0) findings.push(warning('there is no BFV, so no code to start'));
  else if (!volumes.some(holdsResetVector)) {
    findings.push(warning(`no BFV lies at ${hex(RESET_VECTOR)}, where the TD's first vCPU starts`));
  }
  if (!has('TD_HOB') && !has('PermMem')) {
    findings.push(
      warning('there is neither a TD_HOB nor a PermMem section: the firmware has no way to know its memory'),
    );
  }
  for (const name of ONCE) {
    const { length } = sectionsOf(sections, name);
    if (length > 1) {
      findings.push(warning(`there are ${length} ${name} sections, where one is allowed`));
    }
  }
  if (has('PayloadParam') && !has('Payload')) {
    findings.push(warning('there is a PayloadParam section, but no Payload that takes it'));
  }
  return findings;
}

function holdsResetVector(section: TdvfSection): boolean {
  const { start, end } = memoryOf(section);
  return start <= RESET_VECTOR && RESET_VECTOR < end;
}

function checkQemu({ bytes, foundBy, sections }: TdvfImage): Finding[] {
  const findings: Finding[] = [];
  if (foundBy === 'pointer') {
    findings.push(
      warning('the TDX metadata has no entry in a table of GUIDs: QEMU does not find it, other VMMs do'),
    );
  }
  if (!isAligned(bytes.length, QEMU_UNIT)) {
    findings.push(
      warning(`the file has ${hex(bytes.length)} bytes; QEMU takes firmware in multiples of 64 KiB only`),
    );
  }
  const foreign = sections.filter(
    (section) => sectionRule(section) !== undefined && !sectionRule(section)?.qemu,
  );
  if (foreign.length > 0) {
    const names = [...new Set(foreign.map(sectionName))].join(', ');
    findings.push(warning(`QEMU builds no TD with ${names} sections; cloud-hypervisor and others do`));
  }
  if (sectionsOf(sections, 'TD_HOB').length === 0) {
    findings.push(warning('QEMU builds no TD without a TD_HOB section'));
  }
  return findings;
}
