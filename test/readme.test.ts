import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { run } from '../src/cli/verbs/plan.ts';
import { run as runVm } from '../src/cli/verbs/vm.ts';
import { VERBS } from '../src/cli/verbs.ts';
import { captureIo } from './support/capture-io.ts';

const README = readFileSync(fileURLToPath(new URL('../README.md', import.meta.url)), 'utf8');

describe('README', () => {
  it('shows what plan prints on the host it names', async () => {
    const [, command = '', shown = ''] = /\$ npx tdxlab plan (\S+)\n([\s\S]*?)```/.exec(README) ?? [];
    const io = captureIo(80);
    await run([command], {}, io);
    const printed = new Set(io.lines);
    const missing = shown.split('\n').filter((line) => line !== '' && line !== '...' && !printed.has(line));
    expect(shown.length).toBeGreaterThan(500);
    expect(missing).toEqual([]);
  });

  it('shows what vm prints', async () => {
    const [, shown = ''] = /\$ npx tdxlab vm\n([\s\S]*?)```/.exec(README) ?? [];
    const io = captureIo(80);
    expect(await runVm([], {}, io)).toBe(0);
    const printed = new Set(io.lines);
    const missing = shown.split('\n').filter((line) => line !== '' && line !== '...' && !printed.has(line));
    expect(shown.split('\n').length).toBeGreaterThan(10);
    expect(missing).toEqual([]);
  });

  it('names every verb there is', () => {
    for (const verb of VERBS.filter(({ name }) => name !== 'start'))
      expect(README).toContain(`\`${verb.name} `);
  });
});
