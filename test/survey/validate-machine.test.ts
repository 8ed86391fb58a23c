import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InputError } from '../../src/abi/input-error.ts';
import type { MachineDescription } from '../../src/machine/description.ts';
import { SPR_256G_2NODE } from '../../src/survey/embedded/spr-256g-2node.ts';
import { validateMachine } from '../../src/survey/validate-machine.ts';
import { arbitraryDescription } from './arbitrary-description.ts';

const { machine } = SPR_256G_2NODE;
const [memory0, memory1] = machine.memory as [(typeof machine.memory)[0], (typeof machine.memory)[0]];
const [cpu0, cpu1] = machine.processors as [(typeof machine.processors)[0], (typeof machine.processors)[0]];

function refusal(change: Partial<MachineDescription>): string {
  try {
    validateMachine({ ...machine, ...change }, 'm.json');
  } catch (error) {
    if (error instanceof InputError) return error.message;
    throw error;
  }
  return 'accepted';
}

describe('a description', () => {
  it('of a machine that can exist is accepted', () => {
    expect(refusal({})).toBe('accepted');
    expect(refusal({ keyIds: null, seamrr: null, module: null, seamLoader: null })).toBe('accepted');
    fc.assert(fc.property(arbitraryDescription, (any) => validateMachine(any, 'any') === undefined));
  });

  it.each<[string, Partial<MachineDescription>, string]>([
    ['no memory', { memory: [], cmrs: [] }, 'memory: no memory is present'],
    [
      'a reversed range',
      { e820: [{ start: 8192, end: 4096, type: 'usable' }] },
      'e820[0]: range [0x2000, 0x1000)',
    ],
    [
      'a map of more than there is',
      { e820: [{ start: 0, end: 2 ** 40, type: 'usable' }] },
      'e820[0]: usable range [0x0, 0x10000000000) is not all in present memory',
    ],
    ['overlapping memory', { memory: [memory1, { ...memory1, start: memory1.start + 4096 }] }, 'memory[1]: '],
    [
      'memory out of order',
      { memory: [memory1, memory0] },
      'memory[1]: range [0x0, 0x77800000) is not in ascending',
    ],
    ['ragged memory', { memory: [{ ...memory0, end: memory0.end + 1 }] }, 'memory[0]: '],
    [
      'CMRs beyond memory',
      { memory: [memory1] },
      'cmrs[0]: range [0x100000, 0x77800000) is not all in present',
    ],
    [
      'CMRs on memory to come',
      { memory: machine.memory.map((m) => ({ ...m, state: 'hot-pluggable' })) },
      'memory: no',
    ],
    ['a ragged CMR', { cmrs: [{ start: 0x100100, end: 0x200000 }] }, 'cmrs[0]: '],
    [
      'too many CMRs',
      { cmrs: Array.from({ length: 33 }, (_, i) => ({ start: (i + 256) * 4096, end: (i + 257) * 4096 })) },
      'cmrs[32]: ',
    ],
    ['overlapping SRAT', { srat: [machine.srat[0]!, machine.srat[0]!] }, 'srat['],
    ['an odd SEAM range', { seamrr: { start: 0x50_0000_0000, end: 0x50_0300_0000 } }, 'seamrr: '],
    ['an unaligned SEAM range', { seamrr: { start: 0x50_0100_0000, end: 0x50_0300_0000 } }, 'seamrr: '],
    ['a SEAM range on a CMR', { seamrr: { start: 0x1_0000_0000, end: 0x1_0200_0000 } }, 'overlaps CMR'],
    ['no processors', { processors: [] }, 'processors: no processor is present'],
    [
      'absent processors',
      { processors: [{ ...cpu0, present: false }] },
      'processors: no processor is present',
    ],
    [
      'packages that APIC ids do not tell apart',
      { processors: [cpu0, { ...cpu0, apicId: 1, package: 1 }] },
      'processors: no upper part of the APIC ids tells the packages apart',
    ],
    [
      'shared APIC ids',
      { processors: [cpu0, { ...cpu1, apicId: cpu0.apicId }] },
      'processors[1].apicId: 0 is taken',
    ],
    ['nine packages', { processors: [{ ...cpu0, package: 8 }] }, 'processors[0].package: 8 is above 7'],
    ['far nodes', { processors: [{ ...cpu0, node: 1024 }] }, 'processors[0].node: '],
    ['too many KeyIDs', { keyIds: { mktme: 1, tdx: 32767 } }, 'keyIds: '],
    ['a narrow address', { physicalAddressBits: 35 }, 'physicalAddressBits: 35'],
    ['memory above the KeyID bits', { physicalAddressBits: 45 }, 'memory[2]: '],
  ])('with %s is refused, naming the field', (_, change, message) => {
    expect(refusal(change)).toContain(message);
    expect(refusal(change)).toMatch(/^m\.json: /);
  });
});
