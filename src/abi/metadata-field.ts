/** Metadata fields of a TD and of its vCPUs, as the RD and WR leaves know them (module facts 9). */
import { fieldIdParts } from './global-fields.ts';

/** Bits of an element that can be read and written. @public */
export type AccessMasks = readonly [read: bigint, write: bigint];

/** Who accesses: the host, the host of a debug TD, the TD itself, or a migration TD that serves it. @public */
export type MetadataAccess = 'host' | 'debug' | 'guest' | 'service';

/** One field, or a run of fields with consecutive ids. @public */
export interface MetadataField extends Readonly<Record<MetadataAccess, AccessMasks>> {
  readonly name: string;
  /** Id of the first element of the first field. */
  readonly id: bigint;
  readonly classCode: number;
  readonly fieldCode: number;
  readonly fields: number;
  /** Elements of one field. */
  readonly elements: number;
  readonly elementBytes: number;
  /** Step from one element's field code to the next: 2 for VMCS fields, whose odd codes are halves of fields. */
  readonly stride: number;
  /** Where the first element is in its control structure; a VMCS field has no place. */
  readonly offset: number;
  /** The field holds an address, of memory of the host or of a private page of the TD. */
  readonly address?: 'sharedHpa' | 'privateGpa';
}

/** Every bit of an element. @public */
export const ALL = 0xffff_ffff_ffff_ffffn;
/** @public */
export const R: AccessMasks = [ALL, 0n];
/** @public */
export const RW: AccessMasks = [ALL, ALL];
const NONE: AccessMasks = [0n, 0n];
/** Bit 50 of an id: field codes go up in steps of two. */
const STRIDE_TWO = 1n << 50n;

/** Differences of a field from one element that nobody can access. @public */
export type FieldOptions = Partial<Pick<MetadataField, 'fields' | 'elements' | 'address' | MetadataAccess>>;

/** A row of a table of fields. @public */
export function field(id: bigint, name: string, offset: number, options: FieldOptions = {}): MetadataField {
  const { classCode, fieldCode, elementBytes } = fieldIdParts(id);
  const stride = (id & STRIDE_TWO) === 0n ? 1 : 2;
  const { fields = 1, elements = 1 } = options;
  const whole = BigInt.asUintN(8 * elementBytes, ALL);
  const masks = ([read, write]: AccessMasks): AccessMasks => [read & whole, write & whole];
  return {
    name,
    id,
    classCode,
    fieldCode,
    fields,
    elements,
    elementBytes,
    stride,
    offset,
    host: masks(options.host ?? NONE),
    debug: masks(options.debug ?? NONE),
    guest: masks(options.guest ?? NONE),
    service: masks(options.service ?? NONE),
    ...(options.address === undefined ? {} : { address: options.address }),
  };
}
