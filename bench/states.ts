/** States per second of the exhaustive search on one core: three TDs and a CXL window that take turns. */
import { AbstractHost } from '../src/lab/explore/abstract/abstract-host.ts';
import { abstractConfig } from '../src/lab/explore/abstract/from-scenario.ts';
import { searchAll } from '../src/lab/explore/exhaustive/search.ts';
import { parseScenario } from '../src/lab/scenario/language/parse-scenario.ts';

const TEXT = `
name: states
title: three TDs grow and end while a CXL window comes and goes
host:
  nodes: [{ memory: 6GiB }]
  areas: { cxl: { size: 2GiB, kind: cxl, state: hot-pluggable } }
policy: allow+check
events:
${['a', 'b', 'c']
  .map(
    (td) => `
  - { at: 1s, do: td-start, name: ${td}, memory: 2GiB }
  - { at: 2s, do: td-grow, td: ${td}, size: 1GiB }
  - { at: 3s, do: td-stop, td: ${td} }`,
  )
  .join('')}
  - { at: 1s, do: hot-add, memory: cxl }
  - { at: 2s, do: online, memory: cxl }
  - { at: 3s, do: offline, memory: cxl }
`;

const config = abstractConfig(await parseScenario(TEXT, 'states.yaml'));
const options = { mostStates: 400_000 };
searchAll(new AbstractHost(config), options);
const begin = performance.now();
const { states, transitions } = searchAll(new AbstractHost(config), options);
const seconds = (performance.now() - begin) / 1000;
console.log(JSON.stringify({ states, transitions, perSecond: states / seconds }));
