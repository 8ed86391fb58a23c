import { describe, expect, it } from 'vitest';
import { alignDown, alignUp, GIB, KIB, PAGE_4K } from '../../src/abi/address.ts';
import { DEFAULT_HOST, EMBEDDED_HOSTS } from '../../src/survey/embedded/hosts.ts';
import { readHostFiles } from '../../src/survey/read-host.ts';
import { validateMachine } from '../../src/survey/validate-machine.ts';

describe.each([...EMBEDDED_HOSTS])('embedded host %s', (name, { machine, observed, expected }) => {
  it('is a machine that can exist, and is found by its name', async () => {
    expect(machine.name).toBe(name);
    expect(() => validateMachine(machine, name)).not.toThrow();
    const survey = await readHostFiles([name]);
    expect(survey.machine).toEqual(machine);
    expect(survey.observed).toEqual(observed);
    expect(survey.notes).toEqual([]);
  });

  it('has figures that agree with each other', () => {
    const { keyIds } = machine;
    expect(observed.keyIds).toEqual({ start: keyIds!.mktme + 1, end: keyIds!.mktme + 1 + keyIds!.tdx });
    expect(expected.maxTds).toBe(keyIds!.tdx - 1);
    // The PAMT rule, applied to the CMRs: each is a memory range of one node, rounded out to 1 GiB.
    let before = 0;
    const tdmrs = machine.cmrs.map(({ start, end }) => {
      const range = { start: Math.max(before, alignDown(start, GIB)), end: alignUp(end, GIB) };
      before = range.end;
      return range;
    });
    const bytes = tdmrs.flatMap(({ start, end }) =>
      [4 * KIB, 2 * KIB * KIB, GIB].map((page) => alignUp(((end - start) / page) * 16, PAGE_4K)),
    );
    expect(tdmrs).toHaveLength(expected.tdmrs);
    expect(bytes.reduce((sum, size) => sum + size, 0)).toBe(expected.pamtKb * KIB);
    if (observed.pamtKb !== undefined) expect(observed.pamtKb).toBe(expected.pamtKb);
    expect(observed.initialized).toBe(expected.initialisesWithMemblockHoles);
  });

  it('covers its CMRs with a memory map in ascending order', () => {
    for (const [i, entry] of machine.e820.entries()) {
      expect(entry.start).toBeGreaterThanOrEqual(machine.e820[i - 1]?.end ?? 0);
    }
    for (const cmr of machine.cmrs) {
      const bytes = machine.e820.reduce(
        (sum, { start, end }) => sum + Math.max(0, Math.min(end, cmr.end) - Math.max(start, cmr.start)),
        0,
      );
      expect(bytes).toBe(cmr.end - cmr.start);
    }
  });
});

it('the default host is embedded', () => {
  expect(EMBEDDED_HOSTS.has(DEFAULT_HOST)).toBe(true);
});
