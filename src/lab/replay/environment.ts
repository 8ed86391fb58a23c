/** Lines that change the environment of a replay rather than call the module. */

import type { PageLevel } from '../../abi/page-types.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Machine } from '../../machine/machine.ts';
import type { PconfigOutcome } from '../../machine/package.ts';
import { HP_EXCLUSIVE, HP_HOST_PRIORITY, HP_READER } from '../../module/locks.ts';
import { INTR_PENDING_MSR } from '../../module/pending-events.ts';
import type { TdxModule } from '../../module/tdx-module.ts';
import type { GuestPort } from './guest-port.ts';
import { cpuidResult } from './replay-machine.ts';
import type { EnvLine, HeldLock } from './vector-lines.ts';

/** Return codes of PCONFIG. */
const PCONFIG_OUTCOMES: Readonly<Record<number, PconfigOutcome>> = {
  0: 'ok',
  2: 'entropy-error',
  5: 'device-busy',
};

/** Words of a shared/exclusive lock that is held. @internal */
export const SHAREX_WORDS: Readonly<Record<HeldLock['held'], number>> = {
  0: 0,
  1: 1,
  exclusive: 1,
  shared: 2,
  hp: 0,
};
/** Words of a host-priority lock that is held. @internal */
export const HP_WORDS: Readonly<Record<HeldLock['held'], number>> = {
  0: 0,
  1: HP_EXCLUSIVE,
  exclusive: HP_EXCLUSIVE,
  shared: HP_READER,
  hp: HP_HOST_PRIORITY,
};

/** Applies an `env` line. Returns what of it is not supported, if anything. @public */
export function applyEnvironment(
  machine: Machine,
  module: TdxModule,
  guest: GuestPort | null,
  line: EnvLine,
): string | undefined {
  const lps = line.lp === undefined ? machine.lps : [machine.lps[line.lp]!];
  for (const lp of lps) applyToLp(lp, line);
  if (line.lp === undefined) applyToAll(machine, line);
  if (line.seamverify !== undefined && guest?.setVerifyResult?.(line.seamverify) !== true) {
    return 'the result of report verification';
  }
  if (line.lock === undefined) return undefined;
  return holdLock(module, guest, line.lock) ? undefined : `lock ${line.lock.obj}`;
}

function applyToLp(lp: LogicalProcessor, line: EnvLine): void {
  const isOwn = line.lp !== undefined;
  for (const [address, value] of Object.entries(line.msr ?? {})) {
    if (isOwn) lp.msrs.set(Number(address), value);
    else lp.msrs.delete(Number(address));
  }
  for (const [key, values] of Object.entries(line.cpuid ?? {})) {
    if (isOwn) lp.cpuidOverrides.set(key, cpuidResult(values));
    else lp.cpuidOverrides.delete(key);
  }
  if (line.intr !== undefined) lp.msrs.set(INTR_PENDING_MSR, line.intr);
  if (line.tsc !== undefined) lp.fixedTsc = line.tsc;
  if (line.apic !== undefined) lp.apicId = Number(line.apic);
}

function applyToAll(machine: Machine, line: EnvLine): void {
  for (const [address, value] of Object.entries(line.msr ?? {})) machine.msrs.set(Number(address), value);
  for (const [key, values] of Object.entries(line.cpuid ?? {})) machine.cpuid.set(key, cpuidResult(values));
  if (line.cmrs !== undefined) {
    machine.cmrs = line.cmrs.map(([base, size]) => ({ start: Number(base), end: Number(base + size) }));
  }
  if (line.rng_fail !== undefined) machine.entropy.exhausted = line.rng_fail === 1;
  if (line.pconfig !== undefined) {
    for (const pkg of machine.packages) pkg.pconfigOutcome = PCONFIG_OUTCOMES[line.pconfig]!;
  }
  const { seam } = machine;
  if (line.seam_caps !== undefined) seam.seamopsCapabilities = Number(line.seam_caps);
  if (line.handoff !== undefined) {
    const { module_hv, min_update_hv, no_downgrade, num_handoff_pages } = line.handoff;
    seam.handoff = {
      moduleHv: module_hv ?? seam.handoff.moduleHv,
      minUpdateHv: min_update_hv ?? seam.handoff.minUpdateHv,
      noDowngrade: no_downgrade === undefined ? seam.handoff.noDowngrade : no_downgrade === 1,
      pages: num_handoff_pages ?? seam.handoff.pages,
    };
  }
}

/** Sets a lock's word; false for an object that this version does not have. */
function holdLock(module: TdxModule, guest: GuestPort | null, lock: HeldLock): boolean {
  const { obj, index = 0, held } = lock;
  switch (obj) {
    case 'SYS':
      module.globalLock.word = SHAREX_WORDS[held];
      return true;
    case 'KOT':
      module.kot.lock.word = SHAREX_WORDS[held];
      return true;
    case 'WBT':
      module.writeBack[index]!.lock.word = held === 0 ? 0 : 1;
      return true;
    case 'TDMR':
      module.pamt.tdmrs[index]!.lock.word = held === 0 ? 0 : 1;
      return true;
    case 'PAMT':
      module.pamt.entry(Number(lock.pa), (lock.level ?? 0) as PageLevel).lockWord = HP_WORDS[held];
      return true;
    default:
      return guest?.holdLock?.(lock) ?? false;
  }
}
