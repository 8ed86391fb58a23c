/** What a kernel log tells of memory, nodes, processors and its command line, as a table. */

import { cpuModelOf } from './cpu-models.ts';
import { e820TypeOf } from './e820-words.ts';
import { addFact, addNote, inputErrorAt, type MapName } from './evidence.ts';
import type { LogRule } from './log-rule.ts';
import { parseCount, parseInclusiveRange } from './parse-number.ts';
import { TDX_RULES } from './tdx-log-rules.ts';
import { MAX_NODES, MAX_PROCESSORS } from './validate-machine.ts';

/** A log's count includes packages that could be added: as many as processors. */
const MAX_PACKAGES = MAX_PROCESSORS;

const MAP_OF_PREFIX: Readonly<Record<string, MapName>> = {
  'BIOS-e820': 'firmware',
  e820: 'firmware',
  'reserve setup_data': 'extended',
  user: 'user',
  modified: 'modified',
};

const MAP_RULES: readonly LogRule[] = [
  {
    word: ': [mem 0x',
    pattern:
      /(BIOS-e820|e820|reserve setup_data|user|modified): \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\] +(?:[\d.]+ +[KMGTP]?B +)?([a-zA-Z][\w ()]*)/,
    take(evidence, match, place) {
      const words = match[4]!.trim();
      if (words === 'available for PCI devices') return;
      const range = parseInclusiveRange(match[2]!, match[3]!, place);
      const type = e820TypeOf(words);
      if (type === undefined) {
        addNote(evidence, place, `memory type '${words}' is not known; its range counts as reserved`);
      }
      addFact(evidence.maps[MAP_OF_PREFIX[match[1]!]!], { ...range, type: type ?? 'reserved', place }, place);
    },
  },
  {
    word: 'BIOS-e820: [mem',
    pattern: /BIOS-e820: \[mem/,
    take: (evidence, _, place) => addNote(evidence, place, 'this memory map entry is cut and left out'),
  },
];

const NODE_RULES: readonly LogRule[] = [
  {
    word: 'SRAT: Node',
    pattern: /SRAT: Node (\d+) PXM (\d+) \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\](.*)/,
    take(evidence, match, place) {
      const range = parseInclusiveRange(match[3]!, match[4]!, place);
      const node = parseCount(match[1]!, MAX_NODES - 1, 'as a node number', place);
      const proximityDomain = parseCount(match[2]!, 2 ** 32 - 1, 'as a proximity domain', place);
      const hotplug = match[5]!.includes('hotplug');
      const nonVolatile = match[5]!.includes('non-volatile');
      addFact(evidence.srat, { ...range, node, proximityDomain, hotplug, nonVolatile, place }, place);
    },
  },
  {
    word: 'SRAT: PXM',
    pattern: /SRAT: PXM \d+ -> X?2?APIC(?: ID)? 0x([0-9a-f]{1,8}) -> Node (\d+)/i,
    take(evidence, match, place) {
      const node = parseCount(match[2]!, MAX_NODES - 1, 'as a node number', place);
      addFact(evidence.processors, { apicId: Number.parseInt(match[1]!, 16), node }, place);
    },
  },
  {
    word: 'node ',
    pattern: /\bnode +(\d+): \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\]/,
    take(evidence, match, place) {
      const node = parseCount(match[1]!, MAX_NODES - 1, 'as a node number', place);
      const range = parseInclusiveRange(match[2]!, match[3]!, place);
      addFact(evidence.nodeRanges, { ...range, node, place }, place);
    },
  },
  {
    word: 'No NUMA configuration',
    pattern: /No NUMA configuration found/,
    take: (evidence) => {
      evidence.nodes = 1;
    },
  },
];

const PROCESSOR_RULES: readonly LogRule[] = [
  {
    word: 'CPU0: ',
    pattern: /^(?:(?!CPU0: ).)*CPU0: .*\(family: 0x([0-9a-f]+), model: 0x([0-9a-f]+)/,
    take(evidence, match, place) {
      const model = cpuModelOf(Number.parseInt(match[1]!, 16), Number.parseInt(match[2]!, 16));
      if (model !== undefined) evidence.cpuModel = model;
      else
        addNote(
          evidence,
          place,
          `processor model 0x${match[2]} is none of those with TDX that are known here`,
        );
    },
  },
  {
    word: 'hotplug CPUs',
    pattern: /Allowing (\d+) CPUs, (\d+) hotplug CPUs/,
    take(evidence, match, place) {
      const all = parseCount(match[1]!, MAX_PROCESSORS, 'logical processors', place);
      const slots = parseCount(match[2]!, all, 'hot-plug processors', place);
      evidence.presentProcessors = all - slots;
      evidence.processorSlots = slots;
    },
  },
  {
    word: 'hotplug CPUs',
    pattern: /Allowing (\d+) present CPUs plus (\d+) hotplug CPUs/,
    take(evidence, match, place) {
      evidence.presentProcessors = parseCount(match[1]!, MAX_PROCESSORS, 'logical processors', place);
      evidence.processorSlots = parseCount(match[2]!, MAX_PROCESSORS, 'hot-plug processors', place);
    },
  },
  {
    word: 'Brought up',
    pattern: /Brought up (\d+) nodes?, (\d+) CPUs?/,
    take(evidence, match, place) {
      evidence.processorsUp = true;
      evidence.nodes = parseCount(match[1]!, MAX_NODES, 'nodes', place);
      evidence.presentProcessors = parseCount(match[2]!, MAX_PROCESSORS, 'logical processors', place);
    },
  },
  {
    word: 'logical packages',
    pattern: /Max\.? logical packages: +(\d+)/,
    take: (evidence, match, place) => {
      evidence.packages = parseCount(match[1]!, MAX_PACKAGES, 'packages', place);
    },
  },
  {
    word: ', CPUs:',
    pattern: /node +#(\d+), CPUs:/,
    take(evidence, match, place) {
      const node = parseCount(match[1]!, MAX_NODES - 1, 'as a node number', place);
      evidence.nodes = Math.max(evidence.nodes ?? 0, node + 1);
    },
  },
  {
    word: 'bits physical',
    pattern: /address sizes\s*: (\d+) bits physical/,
    take(evidence, match, place) {
      const bits = parseCount(match[1]!, 52, 'physical address bits', place);
      if (bits < 32) throw inputErrorAt(place, `${bits} physical address bits are too few`);
      evidence.usableAddressBits = bits;
    },
  },
];

const COMMAND_LINE_RULES: readonly LogRule[] = [
  {
    word: 'ommand line: ',
    pattern: /(?:Kernel c|C)ommand line: (.*)/,
    take(evidence, match) {
      evidence.commandLine = match[1]!.trim();
      if (/(?:^|\s)(?:nohibernate|hibernate=no)(?:\s|$)/.test(match[1]!)) evidence.hibernationDisabled = true;
    },
  },
];

/** Every rule; the first that matches a line takes it. @internal */
export const LOG_RULES: readonly LogRule[] = [
  ...MAP_RULES,
  ...TDX_RULES,
  ...NODE_RULES,
  ...PROCESSOR_RULES,
  ...COMMAND_LINE_RULES,
];
