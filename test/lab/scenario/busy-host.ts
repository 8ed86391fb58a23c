/** A small host on which everything happens that a scenario can say, in an order that a seed decides. */
import { runScenario } from '../../../src/lab/scenario/engine/run-scenario.ts';
import { parseScenario } from '../../../src/lab/scenario/language/parse-scenario.ts';
import type { PolicySet, Scenario } from '../../../src/lab/scenario/scenario.ts';

const TEXT = (most: number): string => `name: busy-host
title: everything at once
host:
  nodes: [{ memory: 4GiB, cpus: 2 }, { memory: 2GiB, cpus: 2 }]
  keyids: { mktme: 7, tdx: 8 }
  module: "2.0.08"
  seamret-erratum: false
  areas:
    cxl: { size: 1GiB, node: 1, kind: cxl }
    pmem: { size: 1GiB, node: 0, kind: legacy-pmem }
    dimm: { size: 1GiB, node: 0, convertible: true }
    plain: { size: 1GiB, node: 1 }
    part: { at: 0x100000000, size: 512MiB, state: part }
arrivals:
  - every: { poisson: 10s }
    most: ${most}
    choose:
      - { do: td-start, name: web, memory: 64MiB, stay: { uniform: [50s, 10m] } }
      - { do: td-start, name: web, memory: 256MiB, vcpus: 2, stay: { uniform: [50s, 10m] } }
      - { do: td-start, name: big, memory: 1GiB, node: 1, stay: { uniform: [50s, 10m] } }
      - { do: td-start, name: odd, memory: 68KiB, node: 1 }
      - { do: td-stop, td: odd }
      - { do: td-grow, td: any, size: 8MiB }
      - { do: td-grow, td: any, size: 256MiB }
      - { do: td-grow, td: any, size: 12KiB }
      - { do: td-convert, td: any, size: 2MiB }
      - { do: td-convert, td: any, size: 64KiB, to: shared }
      - { do: td-convert, td: any, size: 64KiB, to: private }
      - { do: balloon, td: any, size: 4MiB }
      - { do: host-alloc, name: program, share: 0.9 }
      - { do: host-alloc, name: program, size: 512MiB, movable: true }
      - { do: host-alloc, name: program, share: 0.5, non-tdx: true }
      - { do: host-free, host: program-1 }
      - { do: host-free, host: program-2 }
      - { do: host-free, host: program-3 }
      - { do: fragment, share: 0.3 }
      - { do: compact }
      - { do: kmem-bind, memory: cxl }
      - { do: kmem-unbind, memory: cxl }
      - { do: kmem-bind, memory: pmem, zone: movable }
      - { do: kmem-unbind, memory: pmem }
      - { do: hot-add, memory: dimm }
      - { do: online, memory: dimm }
      - { do: offline, memory: dimm }
      - { do: hot-remove, memory: dimm }
      - { do: hot-add, memory: plain }
      - { do: online, memory: plain, zone: movable }
      - { do: hot-remove, memory: plain, surprise: true }
      - { do: offline, memory: part }
      - { do: online, memory: part }
      - { do: cpu-offline, cpu: 3 }
      - { do: cpu-online, cpu: 3 }
      - { do: cpu-offline, package: 1 }
      - { do: cpu-online, package: 1 }
      - { do: keyid-shortage, leave: 2 }
      - { do: keyid-shortage, leave: 7 }
      - { do: memory-error, td: any }
      - { do: memory-error, memory: part, offset: 64MiB }
      - { do: suspend, to: s2idle }
      - { do: suspend, to: s3 }
      - { do: suspend, to: hibernate }
      - { do: module-update, release: "2.0.08" }
      - { do: set, knob: hotplug, value: allow }
      - { do: set, knob: tdAllocation, value: retry }
      - { do: use-tdx }
  # Rarely: what ends most of what there is.
  - every: { poisson: 20m }
    choose:
      - { do: kexec }
      - { do: kexec, crash: true }
    most: 3
faults:
  - { seamcall: any, probability: 0.0001 }
  - { allocation: any, probability: 0.0005 }
`;

/** So many random events, and those that follow from them. */
export function busyHost(events: number): Promise<Scenario> {
  return parseScenario(TEXT(events), 'busy-host.yaml');
}

/** Invariants broken in the life of `seed`, each with what repeats it. */
export async function brokenIn(scenario: Scenario, policy: PolicySet, seed: number): Promise<string[]> {
  const { violations } = await runScenario(scenario, { policy, seed, auditEvery: 32 });
  return violations.map(
    ({ invariant, text, event }) => `${policy.name} seed ${seed} event ${event}: ${invariant}: ${text}`,
  );
}
