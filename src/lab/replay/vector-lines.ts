/** The lines of a vector file: one JSON object each, checked as it is read. */
import * as v from 'valibot';
import { InputError } from '../../abi/input-error.ts';
import { REGISTER_NAMES } from '../../abi/registers.ts';

const hex = v.pipe(
  v.string(),
  v.regex(/^0x[0-9a-f]+$/i),
  v.transform((value) => BigInt(value)),
);
/** A value that may also be a small plain number. */
const quantity = v.union([
  hex,
  v.pipe(
    v.number(),
    v.integer(),
    v.transform((value) => BigInt(value)),
  ),
]);
const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const bytes = v.pipe(
  v.string(),
  v.regex(/^([0-9a-f]{2})*$/i),
  v.transform((text) => Uint8Array.from(Buffer.from(text, 'hex'))),
);
const registers = v.record(v.picklist(REGISTER_NAMES), hex);
const cpuid = v.record(v.string(), v.tuple([hex, hex, hex, hex]));
const msrs = v.record(v.string(), hex);
const ranges = v.array(v.tuple([hex, hex]));

const platform = v.object({
  t: v.literal('platform'),
  module: v.string(),
  name: v.string(),
  maxpa: count,
  packages: count,
  apic_ids: v.array(count),
  cmrs: ranges,
  seamrr: v.tuple([hex, hex]),
  tsc: hex,
  rng: v.object({ seed: hex }),
  cpuid,
  msr: msrs,
});

const injection = v.object({ vector: count, type: count, error_code: v.optional(hex) });

const lock = v.object({
  obj: v.string(),
  index: v.optional(count),
  pa: v.optional(hex),
  tdr: v.optional(hex),
  gpa: v.optional(hex),
  level: v.optional(count),
  held: v.union([v.literal('exclusive'), v.literal('shared'), v.literal('hp'), v.literal(0), v.literal(1)]),
});

const env = v.object({
  t: v.literal('env'),
  lp: v.optional(count),
  msr: v.optional(msrs),
  cpuid: v.optional(cpuid),
  cmrs: v.optional(ranges),
  apic: v.optional(quantity),
  tsc: v.optional(hex),
  intr: v.optional(quantity),
  rng_fail: v.optional(count),
  pconfig: v.optional(count),
  seam_caps: v.optional(hex),
  seamverify: v.optional(count),
  handoff: v.optional(
    v.object({
      module_hv: v.optional(count),
      min_update_hv: v.optional(count),
      no_downgrade: v.optional(count),
      num_handoff_pages: v.optional(count),
    }),
  ),
  lock: v.optional(lock),
});

const lines = {
  platform,
  env,
  write: v.object({ t: v.literal('write'), pa: hex, hex: bytes, len: v.optional(count) }),
  fill: v.object({ t: v.literal('fill'), pa: hex, len: count, mul: count }),
  seamcall: v.object({
    t: v.literal('seamcall'),
    lp: count,
    in: registers,
    out: v.optional(registers),
    rng: v.optional(count),
    entered: v.optional(v.boolean()),
    guest: v.optional(registers),
    rip: v.optional(hex),
    inj: v.optional(injection),
  }),
  seamcall_repeat: v.object({
    t: v.literal('seamcall_repeat'),
    lp: count,
    count,
    in: registers,
    step: registers,
    out_first: registers,
    out_last: registers,
    status_counts: v.record(v.string(), count),
  }),
  guest_state: v.object({ t: v.literal('guest_state'), lp: count, set: v.record(v.string(), quantity) }),
  guest: v.object({
    t: v.literal('guest'),
    lp: count,
    exit: count,
    rip: v.optional(hex, '0x0'),
    in: registers,
    qual: v.optional(hex, '0x0'),
    gpa: v.optional(hex, '0x0'),
    gla: v.optional(hex, '0x0'),
    intr_info: v.optional(hex, '0x0'),
    instr_info: v.optional(hex, '0x0'),
    instr_len: v.optional(count, 0),
    idt_vec: v.optional(hex, '0x0'),
    result: v.picklist(['resumed', 'injected', 'exited', 'native']),
    out: v.optional(registers),
    rip_out: v.optional(hex),
    inj: v.optional(injection),
    host_out: v.optional(registers),
    state: v.optional(v.record(v.string(), hex), {}),
  }),
  expect: v.object({
    t: v.literal('expect'),
    pa: hex,
    hkid: v.optional(count, 0),
    len: count,
    hex: v.optional(bytes),
    sha384: v.optional(v.string()),
    what: v.optional(v.string()),
  }),
  reload: v.object({ t: v.literal('reload') }),
  note: v.object({ t: v.literal('note') }),
};

type Lines = { [K in keyof typeof lines]: v.InferOutput<(typeof lines)[K]> };

/** Registers by name; one that is missing is 0. @public */
export type RegisterMap = v.InferOutput<typeof registers>;
/** The first line. @public */
export type PlatformLine = Lines['platform'];
/** A change of the environment. @public */
export type EnvLine = Lines['env'];
/** A lock that another agent holds. @public */
export type HeldLock = v.InferOutput<typeof lock>;
/** An event that the module injects. @public */
export type Injection = v.InferOutput<typeof injection>;
/** One SEAMCALL. @public */
export type SeamcallLine = Lines['seamcall'];
/** One SEAMCALL several times. @public */
export type RepeatLine = Lines['seamcall_repeat'];
/** Contents of memory. @public */
export type ExpectLine = Lines['expect'];
/** An exit of the guest on an LP, and what comes of it. @public */
export type GuestLine = Lines['guest'];
/** Changes that the guest made to its own state. @public */
export type GuestStateLine = Lines['guest_state'];
/** Any line, or one of a type this version does not know. @public */
export type VectorLine = Lines[keyof Lines] | { readonly t: 'unknown'; readonly type: string };

/** Reads one line. Throws InputError naming the line number. @public */
export function parseVectorLine(text: string, lineNumber: number): VectorLine {
  const value = parseJson(text, lineNumber);
  const type = (value as { t?: unknown } | null)?.t;
  if (typeof type !== 'string') throw new InputError(`line ${lineNumber}: the line has no type 't'`);
  if (!Object.hasOwn(lines, type)) return { t: 'unknown', type };
  const result = v.safeParse(lines[type as keyof Lines], value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new InputError(`line ${lineNumber}: field '${v.getDotPath(issue) ?? type}': ${issue.message}`);
}

function parseJson(text: string, lineNumber: number): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new InputError(`line ${lineNumber}: this is not JSON`);
  }
}
