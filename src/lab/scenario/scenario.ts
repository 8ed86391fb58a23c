/** A scenario after it was read: what the engine plays. */
import type { KernelConfigHints } from '../../kernel/kernel-config.ts';
import type { KernelPolicy } from '../../kernel/policy/kernel-policy.ts';
import type { MachineDescription, MemoryRange } from '../../machine/description.ts';
import type { EventSpec } from './language/event-schema.ts';
import type { ArrivalSpec, Expectation, FaultSpec } from './language/scenario-schema.ts';

/** A choice of every knob, by the name it is argued under. @public */
export interface PolicySet {
  readonly name: string;
  /** Who stood for it, in one line. */
  readonly title: string;
  /** What differs from the default. */
  readonly knobs: Partial<KernelPolicy>;
}

/** The machine of a scenario, what its kernel was told, and memory by the names that events use. @public */
export interface ScenarioMachine {
  readonly machine: MachineDescription;
  readonly hints: KernelConfigHints;
  readonly areas: ReadonlyMap<string, MemoryRange>;
  /** SEAMRET invalidates the current VMCS; undefined for as the machine has it. */
  readonly seamretErratum: boolean | undefined;
}

/** @public */
export interface Scenario extends ScenarioMachine {
  readonly name: string;
  readonly title: string;
  readonly argument: string;
  readonly policy: PolicySet;
  /** What compare plays it under. */
  readonly policies: readonly PolicySet[];
  readonly seed: number;
  readonly events: readonly EventSpec[];
  readonly arrivals: readonly ArrivalSpec[];
  readonly faults: readonly FaultSpec[];
  readonly expect: readonly (Expectation & { readonly line: number })[];
}
