/**
 * Plain data as JSON text and one run of bytes: objects and arrays as JSON has them, typed arrays as places in the
 * bytes, and what JSON lacks (bigint, undefined, Map, Set, infinity) as objects tagged with `$`.
 */

const TYPED_ARRAYS = {
  u8: Uint8Array,
  u16: Uint16Array,
  u32: Uint32Array,
  i32: Int32Array,
  f64: Float64Array,
  u64: BigUint64Array,
} as const;

type TypedArrayName = keyof typeof TYPED_ARRAYS;
type TypedArray = InstanceType<(typeof TYPED_ARRAYS)[TypedArrayName]>;

/** Where typed arrays begin: the largest element of one. */
const ALIGNMENT = 8;
const TAG = '$';

/** @internal */
export interface PackedData {
  readonly json: string;
  readonly bytes: Uint8Array;
}

/** Packs `value`. Throws Error for anything that is not plain data, such as an object of a class or a function. @internal */
export function packData(value: unknown): PackedData {
  const packer = new Packer();
  return { json: JSON.stringify(packer.pack(value)), bytes: packer.bytes() };
}

/** What was packed; typed arrays are fresh copies. Throws SyntaxError for text that is no JSON. @internal */
export function unpackData({ json, bytes }: PackedData): unknown {
  return unpack(JSON.parse(json), bytes);
}

class Packer {
  readonly #sections: TypedArray[] = [];
  #length = 0;

  pack(value: unknown): unknown {
    switch (typeof value) {
      case 'string':
      case 'boolean':
        return value;
      case 'number':
        return Number.isFinite(value) ? value : { [TAG]: 'number', text: String(value) };
      case 'bigint':
        return { [TAG]: 'bigint', text: `0x${value.toString(16)}` };
      case 'undefined':
        return { [TAG]: 'undefined' };
      case 'object':
        return value === null ? null : this.#packObject(value);
      default:
        throw new Error(`a ${typeof value} cannot be saved`);
    }
  }

  bytes(): Uint8Array {
    const all = new Uint8Array(this.#length);
    let at = 0;
    for (const { buffer, byteOffset, byteLength } of this.#sections) {
      all.set(new Uint8Array(buffer, byteOffset, byteLength), at);
      at = aligned(at + byteLength);
    }
    return all;
  }

  #packObject(value: object): unknown {
    if (Array.isArray(value)) return Array.from(value, (item) => this.pack(item));
    if (value instanceof Map) return { [TAG]: 'map', of: Array.from(value, (pair) => this.pack(pair)) };
    if (value instanceof Set) return { [TAG]: 'set', of: Array.from(value, (item) => this.pack(item)) };
    const array = typedArrayName(value);
    if (array !== undefined) return this.#packArray(array, value as TypedArray);
    if (Object.getPrototypeOf(value) !== Object.prototype || TAG in value) {
      throw new Error(`an object of ${value.constructor.name} cannot be saved`);
    }
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, this.pack(item)]));
  }

  #packArray(name: TypedArrayName, array: TypedArray): unknown {
    const at = this.#length;
    this.#sections.push(array);
    this.#length = aligned(at + array.byteLength);
    return { [TAG]: name, at, length: array.length };
  }
}

function aligned(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

function typedArrayName(value: object): TypedArrayName | undefined {
  // A Buffer is a Uint8Array too.
  return (Object.keys(TYPED_ARRAYS) as TypedArrayName[]).find((name) => value instanceof TYPED_ARRAYS[name]);
}

/** What `Packer` makes of a value that JSON lacks. */
interface Tagged {
  readonly $: TypedArrayName | 'bigint' | 'number' | 'undefined' | 'map' | 'set';
  readonly text: string;
  readonly of: readonly unknown[];
  readonly at: number;
  readonly length: number;
}

function unpack(value: unknown, bytes: Uint8Array): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => unpack(item, bytes));
  if (TAG in value) return unpackTagged(value as Tagged, bytes);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unpack(item, bytes)]));
}

function unpackTagged({ $: tag, text, of, at, length }: Tagged, bytes: Uint8Array): unknown {
  switch (tag) {
    case 'bigint':
      return BigInt(text);
    case 'number':
      return Number(text);
    case 'undefined':
      return undefined;
    case 'map':
      return new Map(unpack(of, bytes) as [unknown, unknown][]);
    case 'set':
      return new Set(unpack(of, bytes) as unknown[]);
    default: {
      const { BYTES_PER_ELEMENT } = TYPED_ARRAYS[tag];
      const copy = bytes.slice(at, at + length * BYTES_PER_ELEMENT);
      return new TYPED_ARRAYS[tag](copy.buffer);
    }
  }
}
