/** The machine a scenario describes: a known host, a file, or one made of figures, with the areas added to it. */
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import {
  type AddressRange,
  alignUp,
  contains,
  formatRange,
  GIB,
  MIB,
  overlaps,
} from '../../../abi/address.ts';
import { InputError } from '../../../abi/input-error.ts';
import { byStart, union } from '../../../abi/ranges.ts';
import type { KernelConfigHints } from '../../../kernel/kernel-config.ts';
import type {
  E820Entry,
  E820Type,
  MachineDescription,
  MemoryKind,
  MemoryRange,
} from '../../../machine/description.ts';
import { findRelease, RELEASES } from '../../../module/releases.ts';
import { machineOf, plainLowMap } from '../../../survey/embedded/embedded-host.ts';
import { changeMap, parseMapOptions } from '../../../survey/memmap-options.ts';
import { readHostFiles } from '../../../survey/read-host.ts';
import { placeSeamRange } from '../../../survey/seam-range.ts';
import { validateMachine } from '../../../survey/validate-machine.ts';
import type { ScenarioMachine } from '../scenario.ts';
import type { AreaSpec, HostFigures, HostSpec, NodeSpec } from './host-schema.ts';
import type { PathStep, YamlText } from './yaml-text.ts';

/** Memory blocks are of 2 GiB on large machines: areas that nobody places begin with one. */
const PLACE = 2 * GIB;
/** End of RAM below 4 GiB on machines made of figures. */
const LOW_END = 0x7780_0000;
const HIGH_START = 4 * GIB;
/** APIC ids of a package. */
const PACKAGE_IDS = 128;

/** Throws InputError naming the place in the scenario, or the file that cannot be read. @internal */
export async function describeHost(source: YamlText, host: HostSpec): Promise<ScenarioMachine> {
  if (typeof host === 'string')
    return { ...(await knownHost(source, host, ['host'])), areas: new Map(), seamretErratum: undefined };
  const base =
    'like' in host
      ? await knownHost(source, host.like, ['host', 'like'])
      : { machine: machineOfNodes(source, host.nodes), hints: { hibernationDisabled: true } };
  return withChanges(source, base, host);
}

interface Known {
  readonly machine: MachineDescription;
  readonly hints: KernelConfigHints;
}

/** A host by name, or a file beside the scenario. */
async function knownHost(source: YamlText, name: string, path: readonly PathStep[]): Promise<Known> {
  const beside = resolve(dirname(source.file), name);
  try {
    const survey = await readHostFiles([existsSync(beside) ? beside : name]);
    return { machine: survey.machine, hints: survey.kernel };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw source.refusal(path, error.message);
  }
}

function machineOfNodes(source: YamlText, nodes: readonly NodeSpec[]): MachineDescription {
  let end = HIGH_START;
  const high = nodes.map(({ memory }, node): AddressRange => {
    const bytes = node === 0 ? memory - 2 * GIB : memory;
    if (bytes <= 0)
      throw source.refusal(['host', 'nodes', 0, 'memory'], 'must be more than the 2GiB below 4 GiB');
    const start = alignUp(end, PLACE);
    end = start + bytes;
    return { start, end };
  });
  const machine = machineOf({
    name: 'scenario',
    cpuModel: 'emerald-rapids',
    keyIds: { mktme: 63, tdx: 64 },
    cmrs: [{ start: MIB, end: LOW_END }, ...high],
    lowMap: plainLowMap(LOW_END),
    processors: { present: 1, slots: 0, packages: 1, nodes: [0] },
    module: '1.5.25',
  });
  const used = new Map<number, number>();
  const processors = nodes.flatMap(({ cpus, package: id }, node) =>
    Array.from({ length: cpus }, () => {
      const pkg = id ?? Math.min(node, 7);
      const index = used.get(pkg) ?? 0;
      used.set(pkg, index + 1);
      return { apicId: pkg * PACKAGE_IDS + index, package: pkg, node, present: true };
    }),
  );
  return { ...machine, processors };
}

function withChanges(source: YamlText, { machine, hints }: Known, figures: HostFigures): ScenarioMachine {
  const areas = new Map<string, MemoryRange>();
  let changed: MachineDescription = {
    ...machine,
    cpuModel: figures.model ?? machine.cpuModel,
    keyIds: figures.keyids ?? machine.keyIds,
    module: figures.module ?? machine.module,
  };
  if (figures.module !== undefined && findRelease(figures.module) === undefined) {
    const known = RELEASES.map(({ version }) => version).join(', ');
    throw source.refusal(['host', 'module'], `there is no release '${figures.module}'; known are ${known}`);
  }
  for (const [name, area] of Object.entries(figures.areas ?? {})) {
    const path = ['host', 'areas', name];
    const range = placed(source, changed, area, path);
    areas.set(name, range);
    if (area.state !== 'part') changed = withArea(changed, range, area.convertible);
  }
  const commandLine = figures['command-line'];
  if (commandLine !== undefined) {
    const { changes, unread } = parseMapOptions(commandLine);
    if (unread.length > 0) throw source.refusal(['host', 'command-line'], `cannot read ${unread[0]}`);
    changed = { ...changed, e820: changes.reduce<readonly E820Entry[]>(changeMap, changed.e820) };
  }
  const { memory, seamrr } = changed;
  // Firmware would have put it elsewhere.
  if (seamrr !== null && memory.some((range) => overlaps(range, seamrr)))
    changed = { ...changed, seamrr: placeSeamRange(memory) };
  check(source, changed);
  return {
    machine: changed,
    hints: commandLine === undefined ? hints : { ...hints, commandLine },
    areas,
    seamretErratum: figures['seamret-erratum'],
  };
}

function placed(
  source: YamlText,
  machine: MachineDescription,
  area: AreaSpec,
  path: readonly PathStep[],
): MemoryRange {
  const last = Math.max(HIGH_START, ...machine.memory.map(({ end }) => end));
  const start = area.at ?? alignUp(last, PLACE);
  const range = { start, end: start + area.size };
  const { memory } = machine;
  if (area.state === 'part') {
    const holder = memory.find((one) => contains(one, range));
    if (holder === undefined || area.at === undefined)
      throw source.refusal(
        path,
        `must say where in one range of memory it is (at), ${formatRange(range)} is not`,
      );
    return { ...holder, ...range };
  }
  const other = memory.find((one) => overlaps(one, range));
  if (other !== undefined)
    throw source.refusal(
      path,
      `${formatRange(range)} overlaps memory ${formatRange(other)}; use state: part`,
    );
  const { node, kind, state = kind === 'ram' ? 'hot-pluggable' : 'present' } = area;
  return { ...range, node, kind, state };
}

/** What firmware says of memory that is there. */
const E820_OF: Readonly<Record<MemoryKind, E820Type>> = {
  ram: 'usable',
  'legacy-pmem': 'legacy-pmem',
  nvdimm: 'pmem',
  cxl: 'soft-reserved',
  'soft-reserved': 'soft-reserved',
};

function withArea(machine: MachineDescription, range: MemoryRange, convertible: boolean): MachineDescription {
  const { start, end, node, kind, state } = range;
  const present = state === 'present';
  return {
    ...machine,
    memory: [...machine.memory, range].sort(byStart),
    e820: present ? [...machine.e820, { start, end, type: E820_OF[kind] }].sort(byStart) : machine.e820,
    srat: [
      ...machine.srat,
      {
        start,
        end,
        node,
        proximityDomain: node,
        hotplug: !present,
        nonVolatile: kind === 'nvdimm' || kind === 'legacy-pmem',
      },
    ].sort(byStart),
    cmrs: convertible ? union([...machine.cmrs, { start, end }]) : machine.cmrs,
  };
}

/** CMRs over memory that is announced for later are what no machine of today has: they are left out of the check. */
function check(source: YamlText, machine: MachineDescription): void {
  const present = union(machine.memory.filter(({ state }) => state === 'present'));
  const cmrs = machine.cmrs.filter((cmr) => present.some((range) => contains(range, cmr)));
  try {
    validateMachine({ ...machine, cmrs }, 'the machine');
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw source.refusal(['host'], error.message);
  }
}
