/** The sequences of test/vectors: a platform, a seed, and what happens. */
import type { MachineDescription } from '../../../src/machine/description.ts';
import { cpuid, exits, msrs, serviceTds, tdcalls } from './guests.ts';
import { ONE_PACKAGE_46_BITS, ScenarioHost, TWO_PACKAGES_48_BITS } from './scenario-host.ts';
import { configuration, initialisation, metadata, update } from './system.ts';
import { creation, dynamicPamt, life, locks, memoryWalk } from './trust-domains.ts';

interface Scenario {
  readonly platform: Partial<MachineDescription>;
  readonly seed: bigint;
  readonly run: (host: ScenarioHost) => void;
}

/** By the name of the sequence. */
export const SCENARIOS: Readonly<Record<string, Scenario>> = {
  initialisation: { platform: TWO_PACKAGES_48_BITS, seed: 101n, run: initialisation },
  configuration: { platform: TWO_PACKAGES_48_BITS, seed: 102n, run: configuration },
  metadata: { platform: ONE_PACKAGE_46_BITS, seed: 103n, run: metadata },
  update: { platform: TWO_PACKAGES_48_BITS, seed: 104n, run: update },
  creation: { platform: TWO_PACKAGES_48_BITS, seed: 105n, run: creation },
  life: { platform: TWO_PACKAGES_48_BITS, seed: 106n, run: life },
  'memory-walk': { platform: ONE_PACKAGE_46_BITS, seed: 107n, run: memoryWalk },
  'memory-walk-48-bits': { platform: TWO_PACKAGES_48_BITS, seed: 108n, run: memoryWalk },
  locks: { platform: ONE_PACKAGE_46_BITS, seed: 109n, run: locks },
  'dynamic-pamt': { platform: TWO_PACKAGES_48_BITS, seed: 110n, run: dynamicPamt },
  cpuid: { platform: ONE_PACKAGE_46_BITS, seed: 111n, run: cpuid },
  msrs: { platform: TWO_PACKAGES_48_BITS, seed: 112n, run: msrs },
  exits: { platform: TWO_PACKAGES_48_BITS, seed: 113n, run: exits },
  tdcalls: { platform: ONE_PACKAGE_46_BITS, seed: 114n, run: tdcalls },
  'service-tds': { platform: TWO_PACKAGES_48_BITS, seed: 115n, run: serviceTds },
};

/** Runs a scenario on the model. Returns the sequence as lines of JSON. */
export function recordScenario(name: string): string {
  const { platform, seed, run } = SCENARIOS[name]!;
  const host = new ScenarioHost(name, platform, seed);
  run(host);
  return host.recorder.text;
}
