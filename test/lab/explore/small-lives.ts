/** A small host to which everything happens that policies of memory are argued about, at random times. */
import { parseScenario } from '../../../src/lab/scenario/language/parse-scenario.ts';
import type { Scenario } from '../../../src/lab/scenario/scenario.ts';

/** Under a policy set; `more` are lines of YAML at the end: events, expectations; no event is of a kind `without`. */
export function smallLives(policy: string, more = '', without: readonly string[] = []): Promise<Scenario> {
  const lines = smallLivesText(policy, more).split('\n');
  const kept = lines.filter((line) => !without.some((kind) => line.includes(`do: ${kind},`)));
  return parseScenario(kept.join('\n'), 'small-lives.yaml');
}

export function smallLivesText(policy: string, more = ''): string {
  return `
name: small-lives
title: everything happens to a small host
host:
  nodes: [{ memory: 2304MiB }, { memory: 256MiB }]
  keyids: { mktme: 7, tdx: 5 }
  areas:
    dimm: { size: 128MiB, node: 0 }
    spare: { size: 128MiB, node: 0, convertible: true }
    cxl: { size: 128MiB, node: 1, kind: cxl, state: present }
    pmem: { size: 128MiB, node: 1, kind: legacy-pmem, state: present, convertible: true }
policy: ${policy}
arrivals:
  - every: { poisson: 10m }
    most: 30
    choose:
      - { do: td-start, name: web, memory: 8MiB, stay: { poisson: 30m } }
      - { do: td-start, name: db, memory: 24MiB, node: 1 }
      - { do: td-grow, td: any, size: 8MiB }
      - { do: td-grow, td: any, size: 32MiB }
      - { do: td-convert, td: any, size: 2MiB }
      - { do: td-stop, td: any }
      - { do: hot-add, memory: dimm }
      - { do: online, memory: dimm }
      - { do: offline, memory: dimm }
      - { do: kmem-bind, memory: cxl }
      - { do: kmem-unbind, memory: cxl }
      - { do: kmem-bind, memory: pmem }
      - { do: hot-add, memory: spare }
      - { do: online, memory: spare }
      - { do: host-alloc, name: hog, share: 1 }
      - { do: host-alloc, name: near, share: 0.97, non-tdx: true }
      - { do: host-alloc, name: local, share: 0.99, node: 0 }
      - { do: host-free, host: hog-1 }
      - { do: host-free, host: local-1 }
      - { do: keyid-shortage, leave: 1 }
${more}`;
}
