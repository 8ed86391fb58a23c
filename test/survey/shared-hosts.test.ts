import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { EMBEDDED_HOSTS } from '../../src/survey/embedded/hosts.ts';
import { readHostFiles } from '../../src/survey/read-host.ts';
import { memoryLines, noteTexts } from './survey-of.ts';

const FOLDER = fileURLToPath(new URL('../../../shared/hosts/', import.meta.url));
const HOSTS = existsSync(FOLDER) ? readdirSync(FOLDER).filter((name) => name !== 'README.md') : [];
if (HOSTS.length === 0) console.warn(`skipped: no host logs in ${FOLDER}`);

const read = (name: string) => readHostFiles([FOLDER + name]);

describe.skipIf(HOSTS.length === 0)('the logs of real hosts', () => {
  it.each(HOSTS)('%s is a machine', async (name) => {
    const { machine } = await read(name);
    expect(machine.memory.length).toBeGreaterThan(0);
  });

  it.each([
    ['spr-256g-2node.dmesg', 'spr-256g-2node'],
    ['emr-256g-4node-fails.dmesg', 'emr-256g-4node'],
    ['emr-256g-4node-works.dmesg', 'emr-256g-4node'],
  ])('%s has the figures of the embedded host %s', async (file, name) => {
    const { machine, observed, kernel } = await read(file);
    const embedded = EMBEDDED_HOSTS.get(name)!;
    expect(machine.cmrs).toEqual(embedded.machine.cmrs);
    expect(machine.keyIds).toEqual(embedded.machine.keyIds);
    expect(machine.seamrr).toEqual(embedded.machine.seamrr);
    expect(machine.module).toBe(embedded.machine.module);
    expect(new Set(machine.processors.map((cpu) => cpu.package)).size).toBe(2);
    expect(machine.memory.filter((range) => range.start >= 2 ** 32)).toEqual(
      embedded.machine.memory.filter((range) => range.start >= 2 ** 32),
    );
    expect(kernel.hibernationDisabled).toBe(true);
    if (file.includes('works')) expect(observed.pamtKb).toBe(embedded.expected.pamtKb);
    else expect(observed).toEqual(embedded.observed);
  });

  it('the failing host has its splintered map, completed by CMRs', async () => {
    const { machine } = await read('emr-256g-4node-fails.dmesg');
    expect(machine.e820).toEqual(EMBEDDED_HOSTS.get('emr-256g-4node')!.machine.e820);
  });

  it('hot-plug windows are announced, not present', async () => {
    const survey = await read('srat-hotplug-windows.dmesg');
    expect(memoryLines(survey).filter((line) => line.includes('present'))).toEqual([
      '0-60000000 ram present 0',
      '100000000-20000000000 ram present 0',
      '20000000000-40000000000 ram present 1',
    ]);
    expect(survey.machine.memory.filter((range) => range.state === 'hot-pluggable')).toHaveLength(6);
  });

  it('CXL memory is in no CMR', async () => {
    const survey = await read('cxl-two-windows.txt');
    expect(memoryLines(survey)).toEqual([
      'c080000000-c480000000 cxl present 1',
      'c480000000-17dc0000000 cxl hot-pluggable 1',
      '68e80000000-70e80000000 cxl present 2',
      '70e80000000-8d380000000 cxl hot-pluggable 2',
    ]);
    expect(survey.machine.cmrs).toEqual([]);
  });

  it("persistent memory that only a memory map knows is legacy, and the user's map replaces the firmware's", async () => {
    const survey = await read('pmem-legacy.txt');
    expect(memoryLines(survey)).toEqual(['1840000000-1aa40000000 legacy-pmem present 0']);
    expect(noteTexts(survey)).toContain("'user' memory map replaces");
  });
});
