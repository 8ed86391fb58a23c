import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { describeMachine } from '../../src/survey/describe-machine.ts';
import { SPR_256G_2NODE } from '../../src/survey/embedded/spr-256g-2node.ts';
import { arbitraryDescription } from './arbitrary-description.ts';
import { inputErrorOf, surveyOf } from './survey-of.ts';

const TEXT = describeMachine(SPR_256G_2NODE.machine);

describe('a machine description as JSON', () => {
  it('comes back as it was written', async () => {
    await fc.assert(
      fc.asyncProperty(arbitraryDescription, async (machine) => {
        expect((await surveyOf(describeMachine(machine))).machine).toEqual(machine);
      }),
    );
  });

  it('has addresses in hexadecimal and takes numbers too', async () => {
    expect(TEXT).toContain('{"start":"0x100000000","end":"0x206e000000"}');
    const numbers = TEXT.replaceAll(/"(0x[0-9a-f]+)"/g, (_, address) => String(Number(address)));
    expect((await surveyOf(numbers)).machine).toEqual(SPR_256G_2NODE.machine);
    expect((await surveyOf(`\ufeff\n${TEXT}`)).machine).toEqual(SPR_256G_2NODE.machine);
  });

  it.each([
    ['"0x206e000000"', '"206e000000"', 'memory[1].end: must be a number or hexadecimal text'],
    ['"0x206e000000"', '-4096', 'memory[1].end: must not be negative'],
    ['"0x206e000000"', '4096.5', 'memory[1].end: must be a whole number'],
    ['"0x206e000000"', '"0xffffffffffffff"', 'memory[1].end: is above 52 bits'],
    ['"kind":"ram"', '"kind":"flash"', 'memory[0].kind: must be ("ram" |'],
    ['"mktme":63', '"mktme":"63"', 'keyIds.mktme: must be number, not "63"'],
    ['"module": "1.5.05"', '"modul": "1.5.05"', 'module: is missing'],
    ['"physicalAddressBits": 52', '"physicalAddressBits": 99', 'physicalAddressBits: is above 52'],
    ['"version":"1.5.00"', '"version":"new"', 'seamLoader.version: must be a version such as "1.5.00"'],
    ['"name":', '"nome": 1, "name":', 'nome: is no field of a machine description'],
    ['"name"', 'name', 'not JSON'],
  ])('with %s written as %s is refused, naming the field', async (before, after, message) => {
    const error = await inputErrorOf(TEXT.replace(before, after));
    expect(error).toContain(`host: ${message}`);
    expect(error).not.toContain('\n');
  });

  it('with more than 32 CMRs is refused', async () => {
    const cmrs = Array.from({ length: 33 }, (_, i) => ({ start: i * 4096, end: i * 4096 + 4096 }));
    const error = await inputErrorOf(describeMachine({ ...SPR_256G_2NODE.machine, cmrs }));
    expect(error).toContain('host: cmrs: holds more than the 32 CMRs');
  });
});
