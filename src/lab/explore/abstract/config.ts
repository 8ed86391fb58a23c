/** What an abstract host is made of: memory as counts of pages, owners of pages, and tasks that take turns. */
import type { KernelPolicy } from '../../../kernel/policy/kernel-policy.ts';
import type { ZoneName } from '../../../kernel/zone.ts';

/** Memory of which every page is alike: of one node and zone, in a CMR or not. @public */
export interface AbstractArea {
  readonly name: string;
  readonly node: number;
  readonly zone: ZoneName;
  /** 4 KiB pages. */
  readonly pages: number;
  /** A CMR holds it. */
  readonly convertible: boolean;
  readonly kind: 'ram' | 'legacy-pmem';
  /** When the kernel has booted, before TDX is initialised. */
  readonly state: 'absent' | 'offline' | 'online' | 'idle';
}

/** A TD or an allocation of the host's programs: what can own pages. @public */
export interface AbstractOwner {
  readonly name: string;
  readonly isTd: boolean;
  /** A host allocation whose pages the kernel may move. */
  readonly movable: boolean;
}

/** An event with its subjects as indexes into the configuration. @public */
export type AbstractEvent =
  | {
      readonly do: 'td-start';
      readonly td: number;
      /** Pages of TDR, TDCS, TDVPS and secure EPT. */
      readonly control: number;
      readonly pages: number;
      readonly node: number;
    }
  | { readonly do: 'td-stop'; readonly td: number }
  | {
      readonly do: 'td-grow';
      readonly td: number;
      /** Pages of secure EPT. */
      readonly control: number;
      readonly pages: number;
    }
  | {
      readonly do: 'td-convert';
      readonly td: number;
      readonly control: number;
      readonly pages: number;
      readonly to: 'both' | 'shared' | 'private' | 'host';
    }
  | {
      readonly do: 'host-alloc';
      readonly owner: number;
      /** Absolute, or a share of what is free. */
      readonly pages: number | { readonly share: number };
      /** Only this one; any where null. */
      readonly node: number | null;
      readonly nonTdxOk: boolean;
    }
  | { readonly do: 'host-free'; readonly owner: number }
  | {
      readonly do: 'hot-add' | 'online' | 'offline' | 'kmem-bind' | 'kmem-unbind';
      readonly areas: readonly number[];
    }
  | { readonly do: 'hot-remove'; readonly areas: readonly number[]; readonly surprise: boolean }
  | { readonly do: 'use-tdx' }
  | { readonly do: 'keyid-shortage'; readonly leave: number }
  | { readonly do: 'kexec'; readonly crash: boolean }
  | { readonly do: 'set'; readonly knob: LiveKnob; readonly value: number };

/** @public */
export type AbstractEventKind = AbstractEvent['do'];

/** Knobs that may change while the host runs; the state holds their values as indexes into `knobValues`. @public */
export const LIVE_KNOBS = ['hotplug', 'tdAllocation', 'onError', 'kexec', 'cmrRemoval'] as const;
/** @public */
export type LiveKnob = (typeof LIVE_KNOBS)[number];

/** One thread of control: its events come one after the other, each with an outcome. @public */
export interface AbstractTask {
  readonly name: string;
  readonly events: readonly (AbstractEvent & { readonly name: string })[];
}

/** @public */
export interface AbstractConfig {
  readonly areas: readonly AbstractArea[];
  readonly owners: readonly AbstractOwner[];
  readonly tasks: readonly AbstractTask[];
  readonly keyIds: number;
  readonly policy: KernelPolicy;
  /** Free pages up to which a zone may look full to a request, because they lie scattered. */
  readonly scattered: number;
}
