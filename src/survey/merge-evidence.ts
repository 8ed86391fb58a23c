/** Puts what the sources tell together into one survey, and says what is assumed. */
import type { AddressRange } from '../abi/address.ts';
import { InputError } from '../abi/input-error.ts';
import { type E820Entry, type KeyIdPartition, keyIdBits, type SratEntry } from '../machine/description.ts';
import { assumeCmrs, coverWithCmrs, observedCmrs } from './cmrs.ts';
import type { Evidence } from './evidence.ts';
import { chooseMaps, type MemoryMaps } from './memory-map.ts';
import { cxlWindowsOf, memoryRanges, sratFor } from './memory-ranges.ts';
import { chooseModule } from './module-release.ts';
import { chooseNodes, chooseSrat, completeSrat, NodeMap, withCxlNodes } from './node-map.ts';
import { chooseCpuModel, chooseProcessors } from './processors.ts';
import { lastWith, Remarks } from './remarks.ts';
import { placeSeamRange } from './seam-range.ts';
import type { KernelHints, Observed, Survey } from './survey.ts';
import { validateMachine } from './validate-machine.ts';

/** Private KeyIDs [64, 128), as the most common BIOS setting splits them. */
const ASSUMED_KEY_IDS: KeyIdPartition = { mktme: 63, tdx: 64 };

/** Width of the machines' address bus, KeyID bits included. */
const ASSUMED_ADDRESS_BITS = 52;

/** No log shows the version of P-SEAMLDR; updates are as many as a fresh boot leaves. */
const ASSUMED_SEAM_LOADER = { version: '1.5.00', remainingUpdates: 16 };

/**
 * The survey of one machine from everything its sources tell; where two tell the same, the last one counts.
 * Throws InputError when they show no memory or a machine that cannot exist.
 * @public
 */
export function mergeEvidence(evidence: readonly Evidence[]): Survey {
  const sources = evidence.map((one) => one.source).join(' + ');
  if (evidence.length === 0) throw new InputError('no source to read a machine from');
  const remarks = new Remarks(sources);
  const described = evidence.filter((one) => one.machine !== undefined);
  if (described.length > 1) {
    throw new InputError(`${sources}: more than one machine description; give one`);
  }
  const machine = described[0]?.machine ?? assemble(evidence, sources, remarks);
  if (described.length > 0) noteUnused(evidence, described[0]!.source, remarks);
  validateMachine(machine, sources);
  const kernel: KernelHints = Object.assign({}, ...evidence.map(kernelHints));
  if (kernel.commandLine !== undefined && kernel.hibernationDisabled === undefined) {
    remarks.assume(
      'the command line has no nohibernate, which TDX needs where hibernation is not off anyway',
    );
  }
  return {
    machine,
    kernel,
    observed: Object.assign({}, ...evidence.map(observedIn)),
    notes: [...evidence.flatMap((one) => one.notes), ...remarks.notes],
  };
}

function assemble(evidence: readonly Evidence[], sources: string, remarks: Remarks): Survey['machine'] {
  const maps = chooseMaps(evidence, remarks);
  const listed = chooseSrat(evidence, remarks).map(({ place: _, ...entry }): SratEntry => entry);
  const shown = observedCmrs(evidence, remarks);
  const e820 = completeMap(maps, shown, listed, remarks);
  const srat = completeSrat(listed, e820, evidence, remarks);
  const cmrs =
    shown.length > 0 ? shown : assumeCmrs(maps.firmware.length > 0 ? maps.firmware : e820, remarks);
  const cxlWindows = cxlWindowsOf(evidence);
  const nodeRanges = withCxlNodes(chooseNodes(evidence, srat, shown, remarks), cxlWindows, remarks);
  const memory = memoryRanges({ map: e820, cmrs, srat, cxlWindows, evidence }, new NodeMap(nodeRanges));
  const present = memory.filter((range) => range.state === 'present');
  if (present.length === 0)
    throw new InputError(`${sources}: no RAM in what it shows; give the whole memory map`);
  const ramNodes = present.filter((range) => range.kind !== 'cxl').map((range) => range.node);
  const nodes = [...new Set(ramNodes.length > 0 ? ramNodes : [0])].sort((a, b) => a - b);
  if (!present.some((range) => range.kind === 'ram')) remarks.assume('the sources show no ordinary RAM');
  const keyIds = chooseKeyIds(evidence, remarks);
  const module = chooseModule(evidence, remarks);
  return {
    name: evidence.map((one) => baseName(one.source)).join('+'),
    cpuModel: chooseCpuModel(evidence, remarks),
    physicalAddressBits: chooseAddressBits(evidence, keyIds),
    processors: chooseProcessors(evidence, nodes, remarks),
    memory,
    e820,
    srat: srat.some((entry) => !entry.hotplug) ? srat : sratFor(memory),
    cmrs,
    keyIds,
    seamrr: placeSeamRange(memory),
    module,
    seamLoader: ASSUMED_SEAM_LOADER,
  };
}

/** The map the kernel works with; where there is none, CMRs or the SRAT stand in. */
function completeMap(
  maps: MemoryMaps,
  cmrs: readonly AddressRange[],
  srat: readonly SratEntry[],
  remarks: Remarks,
): readonly E820Entry[] {
  const map = coverWithCmrs(maps.effective, cmrs, remarks);
  const populated = srat.filter((entry) => !entry.hotplug);
  if (maps.firmware.length > 0 || cmrs.length > 0 || populated.length === 0) return map;
  remarks.assume('no memory map: memory that the SRAT does not call hot-pluggable is taken as present');
  return populated
    .map(({ start, end, nonVolatile }): E820Entry => {
      return { start, end, type: nonVolatile ? 'pmem' : 'usable' };
    })
    .sort((a, b) => a.start - b.start);
}

function chooseKeyIds(evidence: readonly Evidence[], remarks: Remarks): KeyIdPartition {
  const shown = lastWith(evidence, 'KeyID range', (one) => one.keyIds !== undefined, remarks)?.keyIds;
  if (shown !== undefined) return { mktme: shown.start - 1, tdx: shown.end - shown.start };
  const { mktme, tdx } = ASSUMED_KEY_IDS;
  const assumed = `[${mktme + 1}, ${mktme + 1 + tdx}) is assumed`;
  remarks.assume(
    evidence.some((one) => one.processorsUp === true)
      ? `the kernel reported no private KeyIDs: TDX is off in the BIOS, or the kernel lacks it; ${assumed}`
      : `no private KeyID range is shown: ${assumed}`,
  );
  return ASSUMED_KEY_IDS;
}

function chooseAddressBits(evidence: readonly Evidence[], keyIds: KeyIdPartition): number {
  const usable = evidence.findLast((one) => one.usableAddressBits !== undefined)?.usableAddressBits;
  if (usable === undefined) return ASSUMED_ADDRESS_BITS;
  return Math.min(usable + keyIdBits(keyIds), ASSUMED_ADDRESS_BITS);
}

function noteUnused(evidence: readonly Evidence[], described: string, remarks: Remarks): void {
  for (const { source } of evidence) {
    if (source === described) continue;
    remarks.at({ source }, `only what its kernel reported is used: ${described} describes the machine`);
  }
}

/** A kernel that went on to talk to the module had found hibernation off before. */
function kernelHints(evidence: Evidence): KernelHints {
  const { kernel, commandLine, module, initialized } = evidence;
  const passed = module !== undefined || initialized === true ? true : undefined;
  const hibernationDisabled = evidence.hibernationDisabled ?? passed;
  return {
    ...kernel,
    ...(commandLine === undefined ? {} : { commandLine }),
    ...(hibernationDisabled === undefined ? {} : { hibernationDisabled }),
  };
}

function observedIn(evidence: Evidence): Observed {
  const { observed, keyIds, pamtKb, tdmrs, module, initialized, failure, seamcallErrors } = evidence;
  return {
    ...observed,
    ...(keyIds === undefined ? {} : { keyIds: { start: keyIds.start, end: keyIds.end } }),
    ...(pamtKb === undefined ? {} : { pamtKb }),
    ...(tdmrs.length === 0 ? {} : { tdmrs }),
    ...(module === undefined ? {} : { module }),
    ...(initialized === undefined ? {} : { initialized }),
    ...(failure === undefined ? {} : { failure }),
    ...(seamcallErrors.length === 0 ? {} : { seamcallErrors }),
  };
}

/** File name without folders and without its last extensions. */
function baseName(source: string): string {
  const file = source.split(/[/\\]/).at(-1)!;
  return file.replace(/(?:\.(?:gz|dmesg|log|txt|json|machine))+$/, '') || file;
}
