/** The machine of a vector file: exactly the CPUID, MSRs, CMRs and entropy of its platform line. */

import { InputError } from '../../abi/input-error.ts';
import type { MachineDescription } from '../../machine/description.ts';
import { Machine } from '../../machine/machine.ts';
import type { CpuidResult } from '../../machine/native-platform.ts';
import { MSR } from '../../machine/platform.ts';
import { loadModule } from '../../module/load-module.ts';
import { findRelease } from '../../module/releases.ts';
import type { PlatformLine } from './vector-lines.ts';

/** Packages are the x2APIC id above these bits on the recorded platforms. */
const PACKAGE_SHIFT = 7;

/** Builds the machine with its module at SYSINIT_PENDING. Throws InputError for a module release that is not known. @public */
export function replayMachine(platform: PlatformLine): Machine {
  const machine = new Machine(describe(platform), { seed: platform.rng.seed });
  machine.cpuid.clear();
  for (const [key, values] of Object.entries(platform.cpuid)) machine.cpuid.set(key, cpuidResult(values));
  machine.msrs.clear();
  for (const [address, value] of Object.entries(platform.msr)) machine.msrs.set(Number(address), value);
  for (const lp of machine.lps) lp.fixedTsc = platform.tsc;
  loadReplayModule(machine, platform.module);
  return machine;
}

/** Puts a fresh module image in place. @public */
export function loadReplayModule(machine: Machine, version: string): void {
  const release = findRelease(version);
  if (release === undefined) throw new InputError(`line 1: module release '${version}' is not known`);
  loadModule(machine, release);
}

/** @internal */
export function cpuidResult(values: readonly [bigint, bigint, bigint, bigint]): CpuidResult {
  return values.map(Number) as unknown as CpuidResult;
}

function describe(platform: PlatformLine): MachineDescription {
  const partition = platform.msr[`0x${MSR.MKTME_KEYID_PARTITIONING.toString(16)}`] ?? 0n;
  const [seamBase, seamSize] = platform.seamrr.map(Number) as [number, number];
  return {
    name: platform.name,
    cpuModel: 'sapphire-rapids',
    physicalAddressBits: platform.maxpa,
    processors: platform.apic_ids.map((apicId) => ({
      apicId,
      package: apicId >>> PACKAGE_SHIFT,
      node: 0,
      present: true,
    })),
    // Every address answers: the recorded platforms have memory wherever a call looks.
    memory: [{ start: 0, end: 2 ** 52, node: 0, kind: 'ram', state: 'present' }],
    e820: [],
    srat: [],
    cmrs: platform.cmrs.map(([base, size]) => ({ start: Number(base), end: Number(base + size) })),
    keyIds: { mktme: Number(partition & 0xffff_ffffn), tdx: Number(partition >> 32n) },
    seamrr: { start: seamBase, end: seamBase + seamSize },
    module: platform.module,
    seamLoader: null,
  };
}
