/** The host of a scenario: one that tdxlab knows, a file, or a machine made of a few figures. */
import * as v from 'valibot';
import { Address, Flag, Line, list, Name, Release, SomeSize, whole, word } from './fields.ts';

const Area = v.strictObject({
  /** Where it begins; after all other memory where nothing is said. */
  at: v.optional(Address),
  size: SomeSize,
  node: v.optional(whole(0, 1023), 0),
  kind: v.optional(word(['ram', 'legacy-pmem', 'nvdimm', 'cxl', 'soft-reserved']), 'ram'),
  /** `part`: a name for a piece of the memory that is there. RAM is to be plugged in, a device's memory is there. */
  state: v.optional(word(['present', 'hot-pluggable', 'part'])),
  /** A CMR covers it. */
  convertible: v.optional(Flag, false),
});

const CHANGES = {
  model: v.optional(word(['sapphire-rapids', 'emerald-rapids', 'granite-rapids', 'sierra-forest'])),
  keyids: v.optional(v.strictObject({ mktme: whole(0, 16_383), tdx: whole(1, 16_383) })),
  module: v.optional(Release),
  /** SEAMRET invalidates the current VMCS: no update of the module at run time. As the machine has it otherwise. */
  'seamret-erratum': v.optional(Flag),
  /** The kernel's: memmap=, maxcpus=, use_tdx=. */
  'command-line': v.optional(v.string('must be text')),
  /** Memory that events name. */
  areas: v.optional(v.record(Name, Area, 'must be names of areas, each with its size')),
};

const NodeFigures = v.strictObject({
  memory: SomeSize,
  cpus: v.optional(whole(1, 1024), 2),
  package: v.optional(whole(0, 7)),
});

/** @internal */
export const Host = v.union(
  [
    Line,
    v.strictObject({ like: Line, ...CHANGES }),
    v.strictObject({ nodes: v.pipe(list(NodeFigures, 64), v.minLength(1, 'must have a node')), ...CHANGES }),
  ],
  'must be the name of a host, a file, or figures: either `like` a host or with `nodes`',
);

/** @public */
export type HostSpec = v.InferOutput<typeof Host>;
/** @public */
export type HostFigures = Exclude<HostSpec, string>;
/** @public */
export type AreaSpec = v.InferOutput<typeof Area>;
/** @internal */
export type NodeSpec = v.InferOutput<typeof NodeFigures>;
