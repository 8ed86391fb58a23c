/**
 * Plays scenario events on a 2 TiB host: TDs begin, grow, convert and end by real SEAMCALLs, the host's programs take and
 * free memory, memory and CPUs go offline and come back, with every invariant checked. Prints events a second as JSON.
 */
import { runScenario } from '../src/lab/scenario/engine/run-scenario.ts';
import { parseScenario } from '../src/lab/scenario/language/parse-scenario.ts';

const TEXT = `name: bench
title: a busy host of 2 TiB
host:
  like: spr-2t-2node
  areas:
    part: { at: 0x1ff80000000, size: 2GiB, state: part }
arrivals:
  - every: { poisson: 1s }
    most: 20000
    choose:
      - { do: td-start, name: td, memory: 256KiB, stay: { uniform: [20s, 120s] } }
      - { do: td-grow, td: any, size: 64KiB }
      - { do: td-convert, td: any, size: 64KiB }
      - { do: td-convert, td: any, size: 4KiB, to: shared }
      - { do: td-convert, td: any, size: 4KiB, to: private }
      - { do: balloon, td: any, size: 16KiB }
      - { do: host-alloc, name: program, size: 4MiB }
      - { do: host-free, host: program-1 }
      - { do: offline, memory: part }
      - { do: online, memory: part }
      - { do: cpu-offline, cpu: 5 }
      - { do: cpu-online, cpu: 5 }
`;

const scenario = await parseScenario(TEXT, 'bench/events.ts');
/** Runs until the code is warm, and one that counts. */
const ROUNDS = 2;
let perSecond = 0;
for (let round = 0; round < ROUNDS; round++) {
  let begin = 0;
  const run = await runScenario(scenario, {
    seed: round + 1,
    prepare: () => {
      begin = performance.now();
    },
  });
  const seconds = (performance.now() - begin) / 1000;
  if (run.violations.length > 0) throw new Error(run.violations[0]!.text);
  perSecond = run.outcomes.length / seconds;
}
console.log(JSON.stringify({ perSecond }));
