/** Few events that take turns in every order. */
import { parseScenario } from '../../../src/lab/scenario/language/parse-scenario.ts';
import type { Scenario } from '../../../src/lab/scenario/scenario.ts';

/** Two TDs, a CXL window that comes, and a program that takes most memory; `events` come besides. */
export function smallRace(events = ''): Promise<Scenario> {
  return parseScenario(
    `
name: small
title: small
host:
  nodes: [{ memory: 2304MiB }]
  areas: { cxl: { size: 1GiB, kind: cxl, state: hot-pluggable } }
events:
  - { at: 1s, do: td-start, name: a, memory: 64MiB }
  - { at: 3s, do: td-stop, td: a }
  - { at: 1s, do: td-start, name: b, memory: 64MiB }
  - { at: 1s, do: hot-add, memory: cxl }
  - { at: 2s, do: online, memory: cxl }
  - { at: 1s, do: host-alloc, name: hog, size: 2200MiB }
${events}`,
    'small.yaml',
  );
}
