/** What one source tells of a machine, before several sources are put together. */
import type { AddressRange } from '../abi/address.ts';
import { InputError } from '../abi/input-error.ts';
import type { CpuModel, E820Entry, MachineDescription, SratEntry } from '../machine/description.ts';
import type { KernelHints, Note, Observed, ObservedTdmr } from './survey.ts';

/** Where a fact was read: a source, and a 1-based line of it where it has lines. @internal */
export interface Place {
  readonly source: string;
  readonly line?: number;
}

/** A fact with the place it was read at. @internal */
export type Located<T> = T & { readonly place: Place };

/** Memory maps a kernel prints: the firmware's, with boot data marked, by the user's wish, by the kernel's. @internal */
export type MapName = 'firmware' | 'extended' | 'user' | 'modified';

/** One line of /proc/iomem; `depth` 0 is the top level. @internal */
export interface Resource extends AddressRange {
  readonly depth: number;
  readonly name: string;
}

/** A range of memory and the node it belongs to. @internal */
export interface NodeRange extends AddressRange {
  readonly node: number;
}

/** A processor and the node it belongs to. @internal */
export interface ProcessorAffinity {
  readonly apicId: number;
  readonly node: number;
}

/** Mutable while its source is read. Every list is in the order found. @internal */
export interface Evidence {
  readonly source: string;
  readonly notes: Note[];
  readonly maps: Readonly<Record<MapName, Located<E820Entry>[]>>;
  readonly resources: Located<Resource>[];
  readonly srat: Located<SratEntry>[];
  readonly processors: ProcessorAffinity[];
  readonly nodeRanges: Located<NodeRange>[];
  readonly cmrs: Located<AddressRange>[];
  readonly tdmrs: ObservedTdmr[];
  readonly seamcallErrors: { readonly leaf: number; readonly status: bigint }[];
  keyIds?: Located<{ readonly start: number; readonly end: number }>;
  pamtKb?: number;
  module?: NonNullable<Observed['module']>;
  /** The kernel said that no module is loaded. */
  moduleMissing?: boolean;
  initialized?: boolean;
  failure?: NonNullable<Observed['failure']>;
  commandLine?: string;
  hibernationDisabled?: boolean;
  cpuModel?: CpuModel;
  /** Logical processors that are there, and slots for more. */
  presentProcessors?: number;
  processorSlots?: number;
  /** Every processor was brought up: private KeyIDs would have been reported before. */
  processorsUp?: boolean;
  packages?: number;
  nodes?: number;
  /** Physical address width as the kernel reports it, without the bits that carry KeyIDs. */
  usableAddressBits?: number;
  /** A whole machine, described; with it come the hints and observations of an embedded host. */
  machine?: MachineDescription;
  kernel?: KernelHints;
  observed?: Observed;
}

/** @internal */
export function newEvidence(source: string): Evidence {
  return {
    source,
    notes: [],
    maps: { firmware: [], extended: [], user: [], modified: [] },
    resources: [],
    srat: [],
    processors: [],
    nodeRanges: [],
    cmrs: [],
    tdmrs: [],
    seamcallErrors: [],
  };
}

/** True when the evidence says where memory is. @internal */
export function showsMemory(evidence: Evidence): boolean {
  const { maps, resources, srat, cmrs } = evidence;
  const lists = [maps.firmware, maps.extended, maps.user, maps.modified, resources, srat, cmrs];
  return evidence.machine !== undefined || lists.some((list) => list.length > 0);
}

/** The error every reader throws: source and line, then what is wrong. @internal */
export function inputErrorAt(place: Place, text: string): InputError {
  return new InputError(
    place.line === undefined ? `${place.source}: ${text}` : `${place.source}, line ${place.line}: ${text}`,
  );
}

/** Longest list of facts of one kind; no firmware prints as many, and a hostile file must not fill memory. */
const MAX_FACTS = 100_000;
/** Notes kept per source; a log that is damaged all over need not say so on every line. */
const MAX_NOTES = 100;

/** Appends a fact, refusing lists that no real machine has. @internal */
export function addFact<T>(list: T[], fact: T, place: Place): void {
  if (list.length >= MAX_FACTS) throw inputErrorAt(place, `more than ${MAX_FACTS} entries of one kind`);
  list.push(fact);
}

/** Appends a note unless the source has many already. @internal */
export function addNote(evidence: Evidence, place: Place, text: string): void {
  const { notes } = evidence;
  if (notes.length < MAX_NOTES) notes.push({ ...place, text });
  else if (notes.length === MAX_NOTES)
    notes.push({ source: place.source, text: 'further notes are left out' });
}
