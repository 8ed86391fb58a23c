/** What a survey of a real machine yields: the machine, hints for its kernel, and what its own kernel reported. */
import type { AddressRange } from '../abi/address.ts';
import type { MachineDescription } from '../machine/description.ts';

/** Facts about the kernel that ran on the machine, as far as its log tells. @public */
export interface KernelHints {
  /** `nohibernate` on the command line, or hibernation otherwise off. Undefined where the log does not say. */
  readonly hibernationDisabled?: boolean;
  /** The kernel command line, where the log has it. */
  readonly commandLine?: string;
}

/** A TDMR line, where a kernel printed one. @public */
export interface ObservedTdmr extends AddressRange {
  readonly reservedAreas?: number;
}

/** How the machine's own kernel fared. @public */
export interface Observed {
  readonly keyIds?: { readonly start: number; readonly end: number };
  readonly pamtKb?: number;
  readonly tdmrs?: readonly ObservedTdmr[];
  readonly module?: {
    readonly major: number;
    readonly minor: number;
    readonly update?: number;
    readonly buildDate?: number;
    readonly buildNumber?: number;
  };
  /** `module initialized` was printed. */
  readonly initialized?: boolean;
  /** The failure that was printed, with its errno as in `(-28)` where one was. */
  readonly failure?: { readonly text: string; readonly errno?: number; readonly range?: AddressRange };
  /** SEAMCALL errors that were printed: leaf and status. */
  readonly seamcallErrors?: readonly { readonly leaf: number; readonly status: bigint }[];
}

/** Something the reader assumed, ignored or could not read, for the user to know. @public */
export interface Note {
  readonly source: string;
  /** 1-based; absent for a remark on the whole source. */
  readonly line?: number;
  readonly text: string;
}

/** @public */
export interface Survey {
  readonly machine: MachineDescription;
  readonly kernel: KernelHints;
  readonly observed: Observed;
  readonly notes: readonly Note[];
}
