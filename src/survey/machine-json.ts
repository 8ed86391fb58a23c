/** Reads `*.machine.json`: a MachineDescription with addresses as numbers or as hexadecimal text. */
import * as v from 'valibot';
import { InputError } from '../abi/input-error.ts';
import { MAX_CMRS, type MachineDescription } from '../machine/description.ts';
import { ADDRESS_LIMIT } from './parse-number.ts';

const Address = v.pipe(
  v.union(
    [v.number(), v.pipe(v.string(), v.regex(/^0x[0-9a-fA-F]{1,16}$/), v.transform(Number))],
    'must be a number or hexadecimal text such as "0x100000"',
  ),
  v.integer('must be a whole number'),
  v.minValue(0, 'must not be negative'),
  v.maxValue(ADDRESS_LIMIT, 'is above 52 bits'),
);

const Count = (limit: number) =>
  v.pipe(
    v.number(),
    v.integer('must be a whole number'),
    v.minValue(0, 'must not be negative'),
    v.maxValue(limit, `is above ${limit}`),
  );

const U32 = Count(2 ** 32 - 1);
const RANGE = { start: Address, end: Address };

const Memory = v.strictObject({
  ...RANGE,
  node: U32,
  kind: v.picklist(['ram', 'legacy-pmem', 'nvdimm', 'cxl', 'soft-reserved']),
  state: v.picklist(['present', 'hot-pluggable']),
});

const E820 = v.strictObject({
  ...RANGE,
  type: v.picklist([
    'usable',
    'reserved',
    'acpi-data',
    'acpi-nvs',
    'unusable',
    'pmem',
    'legacy-pmem',
    'soft-reserved',
  ]),
});

const Srat = v.strictObject({
  ...RANGE,
  proximityDomain: U32,
  node: U32,
  hotplug: v.boolean(),
  nonVolatile: v.boolean(),
});

const Processor = v.strictObject({ apicId: U32, package: U32, node: U32, present: v.boolean() });

const Version = v.pipe(
  v.string(),
  v.regex(/^\d{1,5}\.\d{1,5}(?:\.\d{1,5})?$/, 'must be a version such as "1.5.00"'),
);

const Machine = v.strictObject({
  name: v.string(),
  cpuModel: v.picklist(['sapphire-rapids', 'emerald-rapids', 'granite-rapids', 'sierra-forest']),
  physicalAddressBits: Count(52),
  processors: v.array(Processor),
  memory: v.array(Memory),
  e820: v.array(E820),
  srat: v.array(Srat),
  slit: v.exactOptional(v.array(v.array(Count(255)))),
  cmrs: v.pipe(
    v.array(v.strictObject(RANGE)),
    v.maxLength(MAX_CMRS, `holds more than the ${MAX_CMRS} CMRs a platform can have`),
  ),
  keyIds: v.nullable(v.strictObject({ mktme: U32, tdx: U32 })),
  seamrr: v.nullable(v.strictObject(RANGE)),
  module: v.nullable(v.pipe(v.string(), v.nonEmpty())),
  seamLoader: v.nullable(v.strictObject({ version: Version, remainingUpdates: U32 })),
});

/** Throws InputError naming the place in the JSON text or the field. @internal */
export function readMachineJson(source: string, text: string): MachineDescription {
  let json: unknown;
  try {
    json = JSON.parse(text.replace(/^\ufeff/, ''));
  } catch (error) {
    throw new InputError(`${source}: not JSON: ${(error as Error).message.split('\n')[0]}`);
  }
  const result = v.safeParse(Machine, json, { abortEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  throw new InputError(`${source}: ${fieldPath(issue.path ?? [])}: ${complaint(issue)}`);
}

/** Checks have their own words; a value of the wrong type gets the same for every field. */
function complaint({ kind, type, expected, received, message }: v.BaseIssue<unknown>): string {
  if (kind !== 'schema' || type === 'union' || expected === null) return message;
  if (expected === 'never') return 'is no field of a machine description';
  return received === 'undefined' ? 'is missing' : `must be ${expected}, not ${received}`;
}

/** `memory[2].start`, as the fields are written in JavaScript. */
function fieldPath(path: readonly { readonly key?: unknown }[]): string {
  const names = path.map(({ key }) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`));
  return names.join('').replace(/^\./, '') || 'the description';
}
