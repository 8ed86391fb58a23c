/** Features of which a TD that takes fewer #VEs still wants to hear (module facts 9, 11). */
import { NO_SUBLEAF } from '../platform.ts';
import { CPUID_LEAF, EBX, ECX, EDX } from '../platform-cpu-facts.ts';
import type { ControlStructure } from './control-structure.ts';
import { cpuidIndex, loadCpuid } from './cpuid-values.ts';
import { hasAny, TD_CTLS } from './features.ts';
import { TDCS } from './layout.ts';
import { setFlags } from './td-cpuid.ts';

/** TDCS.FEATURE_PARAVIRT_CTLS. */
const PARAVIRT = {
  CORE_CAPABILITIES: 1n << 0n,
  DCA: 1n << 1n,
  EST: 1n << 2n,
  MCA: 1n << 3n,
  MTRR: 1n << 4n,
  PCONFIG: 1n << 5n,
  RDT_A: 1n << 6n,
  RDT_M: 1n << 7n,
  ACPI: 1n << 8n,
  TM2: 1n << 9n,
  TME: 1n << 10n,
  TSC_DEADLINE: 1n << 11n,
} as const;

/** Follows a change of the TD's own choice of the #VEs it takes. @public */
export function updateParavirtFlags(tdcs: ControlStructure): void {
  const reduceVe = hasAny(tdcs.u64(TDCS.TD_CTLS), TD_CTLS.REDUCE_VE);
  const wanted = tdcs.u64(TDCS.FEATURE_PARAVIRT_CTLS);
  const keeps = (feature: keyof typeof PARAVIRT): boolean => !reduceVe || hasAny(wanted, PARAVIRT[feature]);
  const version = loadCpuid(tdcs, cpuidIndex(CPUID_LEAF.VERSION, NO_SUBLEAF));
  const features = loadCpuid(tdcs, cpuidIndex(CPUID_LEAF.FEATURES, 0));
  const offers = (values: Uint32Array, register: number, position: number): boolean =>
    ((values[register]! >>> position) & 1) === 1;
  const lacks = (feature: keyof typeof PARAVIRT, offered: boolean): boolean =>
    reduceVe && !(hasAny(wanted, PARAVIRT[feature]) && offered);
  setFlags(tdcs, {
    DCA: offers(version, ECX, 18) && keeps('DCA'),
    TSC_DEADLINE: offers(version, ECX, 24) && keeps('TSC_DEADLINE'),
    EST: offers(version, ECX, 7) && keeps('EST'),
    TM2: offers(version, ECX, 8) && keeps('TM2'),
    NO_MCE: lacks('MCA', offers(version, EDX, 7)),
    NO_MCA: lacks('MCA', offers(version, EDX, 14)),
    NO_MTRR: lacks('MTRR', offers(version, EDX, 12)),
    ACPI: offers(version, EDX, 22) && keeps('ACPI'),
    RDT_A: offers(features, EBX, 15) && keeps('RDT_A'),
    RDT_M: offers(features, EBX, 12) && keeps('RDT_M'),
    TME: offers(features, ECX, 13) && keeps('TME'),
    PCONFIG: offers(features, EDX, 18) && keeps('PCONFIG'),
    NO_CORE_CAPABILITIES: lacks('CORE_CAPABILITIES', offers(features, EDX, 30)),
  });
}
