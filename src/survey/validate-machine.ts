/** Checks that a description is of a machine that can exist; every reader's result passes here. */
import { type AddressRange, contains, formatRange, isAligned, overlaps, PAGE_4K } from '../abi/address.ts';
import { InputError } from '../abi/input-error.ts';
import { firstOverlap, union } from '../abi/ranges.ts';
import { keyIdBits, MAX_CMRS, type MachineDescription, packageShift } from '../machine/description.ts';

/** Packages a module can manage (MAX_PKGS, module facts 0). @internal */
export const MAX_PACKAGES = 8;
/** Logical processors Linux runs on (CONFIG_NR_CPUS of x86-64). @internal */
export const MAX_PROCESSORS = 8192;
/** Nodes Linux knows (MAX_NUMNODES of x86-64). @internal */
export const MAX_NODES = 1024;
/** KeyIDs that fit the 15 bits of TME. */
const MAX_KEY_IDS = 2 ** 15;

/** Throws InputError naming the source and the field at fault. @public */
export function validateMachine(machine: MachineDescription, source: string): void {
  const refuse = (field: string, text: string): never => {
    throw new InputError(`${source}: ${field}: ${text}`);
  };
  checkRanges(machine, refuse);
  checkMemory(machine, refuse);
  checkProcessors(machine, refuse);
  checkEncryption(machine, refuse);
}

type Refuse = (field: string, text: string) => never;

function checkRanges(machine: MachineDescription, refuse: Refuse): void {
  for (const list of ['memory', 'e820', 'cmrs'] as const) {
    let before: AddressRange | undefined;
    for (const [i, range] of machine[list].entries()) {
      if (range.start >= range.end) {
        refuse(`${list}[${i}]`, `range ${formatRange(range)} is empty or reversed`);
      }
      if (before !== undefined && range.start < before.end) {
        const wrong = overlaps(before, range) ? 'overlaps' : 'is not in ascending order after';
        refuse(`${list}[${i}]`, `range ${formatRange(range)} ${wrong} ${formatRange(before)}`);
      }
      before = range;
    }
  }
  for (const [i, range] of machine.srat.entries()) {
    if (range.start >= range.end) refuse(`srat[${i}]`, `range ${formatRange(range)} is empty or reversed`);
  }
  const overlap = firstOverlap(machine.srat);
  if (overlap !== undefined) {
    const [before, after] = overlap;
    const field = `srat[${machine.srat.indexOf(after)}]`;
    refuse(field, `range ${formatRange(after)} overlaps ${formatRange(before)}`);
  }
}

function checkMemory(machine: MachineDescription, refuse: Refuse): void {
  const { memory, e820, cmrs, srat, seamrr } = machine;
  const present = memory.filter((range) => range.state === 'present');
  if (present.length === 0) refuse('memory', 'no memory is present');
  for (const [i, range] of memory.entries()) {
    if (!isWholePages(range))
      refuse(`memory[${i}]`, `range ${formatRange(range)} is not made of 4 KiB pages`);
    if (range.node >= MAX_NODES) refuse(`memory[${i}].node`, `${range.node} is above ${MAX_NODES - 1}`);
  }
  for (const [i, entry] of srat.entries()) {
    if (entry.node >= MAX_NODES) refuse(`srat[${i}].node`, `${entry.node} is above ${MAX_NODES - 1}`);
  }
  if (cmrs.length > MAX_CMRS) refuse(`cmrs[${MAX_CMRS}]`, `a platform has at most ${MAX_CMRS} CMRs`);
  const covered = union(present);
  for (const [i, cmr] of cmrs.entries()) {
    if (!isWholePages(cmr)) refuse(`cmrs[${i}]`, `range ${formatRange(cmr)} is not made of 4 KiB pages`);
    if (!covered.some((range) => contains(range, cmr))) {
      refuse(`cmrs[${i}]`, `range ${formatRange(cmr)} is not all in present memory`);
    }
  }
  for (const [i, entry] of e820.entries()) {
    if (entry.type !== 'usable' || covered.some((range) => contains(range, entry))) continue;
    refuse(`e820[${i}]`, `usable range ${formatRange(entry)} is not all in present memory`);
  }
  if (seamrr === null) return;
  const size = seamrr.end - seamrr.start;
  if (size < PAGE_4K || !Number.isInteger(Math.log2(size)) || !isAligned(seamrr.start, size)) {
    refuse('seamrr', `range ${formatRange(seamrr)} is not a power of two of bytes aligned to its size`);
  }
  const cmr = cmrs.find((range) => overlaps(range, seamrr));
  if (cmr !== undefined) refuse('seamrr', `range ${formatRange(seamrr)} overlaps CMR ${formatRange(cmr)}`);
}

function checkProcessors(machine: MachineDescription, refuse: Refuse): void {
  const { processors } = machine;
  if (!processors.some((cpu) => cpu.present)) refuse('processors', 'no processor is present');
  if (processors.length > MAX_PROCESSORS) refuse('processors', `more than ${MAX_PROCESSORS}`);
  const seen = new Set<number>();
  for (const [i, { apicId, package: id, node }] of processors.entries()) {
    if (seen.has(apicId)) refuse(`processors[${i}].apicId`, `${apicId} is taken by another processor`);
    seen.add(apicId);
    if (id >= MAX_PACKAGES) refuse(`processors[${i}].package`, `${id} is above ${MAX_PACKAGES - 1}`);
    if (node >= MAX_NODES) refuse(`processors[${i}].node`, `${node} is above ${MAX_NODES - 1}`);
  }
  if (packageShift(processors) === null) {
    refuse('processors', 'no upper part of the APIC ids tells the packages apart');
  }
}

function checkEncryption(machine: MachineDescription, refuse: Refuse): void {
  const { keyIds, physicalAddressBits, memory, seamrr, e820 } = machine;
  if (keyIds !== null && keyIds.mktme + keyIds.tdx >= MAX_KEY_IDS) {
    refuse('keyIds', `${keyIds.mktme} and ${keyIds.tdx} KeyIDs are more than ${MAX_KEY_IDS - 1}`);
  }
  if (physicalAddressBits < 36 || physicalAddressBits > 52) {
    refuse('physicalAddressBits', `${physicalAddressBits} is not from 36 to 52`);
  }
  const limit = 2 ** (physicalAddressBits - keyIdBits(keyIds));
  const check = (field: string, index: number | undefined, range: AddressRange): void => {
    if (range.end <= limit) return;
    const name = index === undefined ? field : `${field}[${index}]`;
    refuse(
      name,
      `range ${formatRange(range)} ends above the ${Math.log2(limit)} address bits that KeyIDs leave`,
    );
  };
  for (const [i, range] of memory.entries()) check('memory', i, range);
  for (const [i, entry] of e820.entries()) if (entry.type === 'usable') check('e820', i, entry);
  if (seamrr !== null) check('seamrr', undefined, seamrr);
}

function isWholePages(range: AddressRange): boolean {
  return isAligned(range.start, PAGE_4K) && isAligned(range.end, PAGE_4K);
}
