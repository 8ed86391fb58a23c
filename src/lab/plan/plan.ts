/** What a plan says: how TDX would come up on a host, computed without running it. All sizes in bytes. */
import type { AddressRange } from '../../abi/address.ts';
import type { ErrnoName } from '../../abi/errno.ts';
import type { MemoryKind } from '../../machine/description.ts';
import type { Note } from '../../survey/survey.ts';

/** Choices a plan is made under. @public */
export interface PlanOptions {
  /** What becomes a reserved area: every gap between memory blocks, or only what no CMR covers. */
  readonly holes: 'memblock' | 'cmr';
  /** Release to load instead of the machine's own. */
  readonly module?: string | undefined;
  readonly dynamicPamt: boolean;
}

/** PAMT bytes of one TDMR by the page size that the entries describe. @public */
export interface PamtBytes {
  readonly '4k': number;
  readonly '2m': number;
  readonly '1g': number;
  readonly total: number;
}

/** A part of a TDMR that its module must leave alone, and why. @public */
export interface PlannedReservedArea extends AddressRange {
  readonly why: 'hole' | 'pamt';
}

/** @public */
export interface PlannedTdmr extends AddressRange {
  readonly node: number;
  /** Reserved areas needed; above the limit the TDMR cannot be made. */
  readonly reservedAreas: number;
  readonly reservedAreaLimit: number;
  readonly reserved: readonly PlannedReservedArea[];
  readonly pamtBytes: PamtBytes;
  /** Where its PAMT would lie; null when no such contiguous piece of memory is to be had. */
  readonly pamt: (AddressRange & { readonly node: number }) | null;
}

/** Memory that no TD can use, and why. @public */
export interface NotCapable extends AddressRange {
  readonly bytes: number;
  readonly kind: MemoryKind;
  readonly why: string;
}

/** One node's account. @public */
export interface PlannedNode {
  readonly node: number;
  readonly packages: readonly number[];
  /** Memory present on the node. */
  readonly memoryBytes: number;
  /** Of it, memory that TDs can use: inside a TDMR, not reserved. */
  readonly tdxBytes: number;
  readonly nonTdxBytes: number;
  readonly nonTdx: readonly NotCapable[];
  readonly pamtBytes: number;
  readonly pamtKb: number;
  /** Announced for hot-plug, not present. */
  readonly hotPluggableBytes: number;
}

/** Whether initialisation would succeed. When it would not, every field but `status` and `ranges` tells why. @public */
export interface Verdict {
  readonly ok: boolean;
  /** Step at which it would fail. */
  readonly step: string | null;
  /** As kernels print it: -28. */
  readonly errno: number | null;
  readonly errnoName: ErrnoName | null;
  /** SEAMCALL status behind the errno, with its name. */
  readonly status: { readonly value: bigint; readonly name: string } | null;
  /** Stable code of the reason, for programs. */
  readonly code: string | null;
  readonly reason: string | null;
  readonly ranges: readonly AddressRange[];
}

/** A change that makes a failing host pass; each was tried by planning again with it. @public */
export interface Remedy {
  readonly change: string;
  /** What the host would then spend and lose. */
  readonly effect: string;
}

/** One fact that the machine's own kernel reported, beside what the plan says of it. @public */
export interface Comparison {
  readonly what: string;
  readonly planned: string;
  readonly observed: string;
  readonly agrees: boolean;
}

/** @public */
export interface Plan {
  readonly host: string;
  readonly machine: {
    readonly packages: number;
    readonly logicalProcessors: number;
    readonly physicalAddressBits: number;
    readonly memoryBytes: number;
  };
  readonly module: string | null;
  readonly options: PlanOptions;
  readonly tdx: {
    readonly enabledByBios: boolean;
    /** Half open, as kernels print it; both 0 where TDX is off. */
    readonly privateKeyIds: { readonly start: number; readonly end: number; readonly count: number };
    /** The KeyID that the module keeps for itself. */
    readonly globalKeyId: number | null;
  };
  readonly tds: {
    /** TDs that can exist at once: one private KeyID each, less the module's own. */
    readonly max: number;
  };
  readonly cmrs: readonly (AddressRange & { readonly bytes: number })[];
  readonly tdmrs: readonly PlannedTdmr[];
  readonly pamt: { readonly totalBytes: number; readonly totalKb: number };
  readonly nodes: readonly PlannedNode[];
  readonly verdict: Verdict;
  readonly warnings: readonly string[];
  readonly remedies: readonly Remedy[];
  readonly comparisons: readonly Comparison[];
  readonly notes: readonly Note[];
}
