/**
 * C structures as tables of fields: `struct({ size: u64, flags: u64, reserved: u64s(6) })` reads and writes buffers with
 * the layout a C compiler gives them, little endian. The table lists padding as fields of its own.
 */

/** How one field is laid out. @public */
export interface Field<T> {
  readonly bytes: number;
  read(view: DataView, offset: number): T;
  write(view: DataView, offset: number, value: T): void;
}

type Fields = Readonly<Record<string, Field<unknown>>>;

/** What `decode` gives and `encode` takes: a value per field. @public */
export type StructValues<F extends Fields> = {
  -readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never;
};

/** The values of a structure: `ValuesOf<typeof KVM_SREGS>`. @public */
export type ValuesOf<S> = S extends Struct<infer F> ? StructValues<F> : never;

/** One structure. Itself a field, for structures within structures. @public */
export interface Struct<F extends Fields> extends Field<StructValues<F>> {
  /** Byte offset of every field. */
  readonly offsets: { readonly [K in keyof F]: number };
  /** The structure at `offset`. Throws RangeError where `bytes` ends before it does. */
  decode(bytes: Uint8Array, offset?: number): StructValues<F>;
  /** A new buffer; fields not given are zero. */
  encode(values?: Partial<StructValues<F>>): Uint8Array;
  /** Writes the given fields into the structure at `offset` of `bytes` and leaves the others as they are. */
  patch(bytes: Uint8Array, values: Partial<StructValues<F>>, offset?: number): void;
}

/** Unsigned integers of 8, 16 and 32 bits, as number. @public */
export const u8: Field<number> = {
  bytes: 1,
  read: (view, offset) => view.getUint8(offset),
  write: (view, offset, value) => view.setUint8(offset, value),
};
/** @public */
export const u16: Field<number> = {
  bytes: 2,
  read: (view, offset) => view.getUint16(offset, true),
  write: (view, offset, value) => view.setUint16(offset, value, true),
};
/** @public */
export const u32: Field<number> = {
  bytes: 4,
  read: (view, offset) => view.getUint32(offset, true),
  write: (view, offset, value) => view.setUint32(offset, value, true),
};
/** Signed 32 bits, as number. @public */
export const s32: Field<number> = {
  bytes: 4,
  read: (view, offset) => view.getInt32(offset, true),
  write: (view, offset, value) => view.setInt32(offset, value, true),
};
/** Unsigned 64 bits, as bigint. @public */
export const u64: Field<bigint> = {
  bytes: 8,
  read: (view, offset) => view.getBigUint64(offset, true),
  write: (view, offset, value) => view.setBigUint64(offset, value, true),
};

/** `count` equal fields in a row. Writing fewer leaves the rest as it is; more is a RangeError. @public */
export function array<T>(field: Field<T>, count: number): Field<T[]> {
  return {
    bytes: field.bytes * count,
    read: (view, offset) =>
      Array.from({ length: count }, (_, index) => field.read(view, offset + index * field.bytes)),
    write: (view, offset, values) => {
      if (values.length > count) throw new RangeError(`${values.length} values for an array of ${count}`);
      for (const [index, value] of values.entries()) field.write(view, offset + index * field.bytes, value);
    },
  };
}

/** @public */
export const u32s = (count: number): Field<number[]> => array(u32, count);
/** @public */
export const u64s = (count: number): Field<bigint[]> => array(u64, count);

/** `count` bytes as they are. @public */
export function bytes(count: number): Field<Uint8Array> {
  return {
    bytes: count,
    read: (view, offset) => new Uint8Array(view.buffer, view.byteOffset + offset, count).slice(),
    write: (view, offset, value) => {
      if (value.length > count) throw new RangeError(`${value.length} bytes for a field of ${count}`);
      new Uint8Array(view.buffer, view.byteOffset + offset, count).set(value);
    },
  };
}

/** A structure of `fields`, one after the other. @public */
export function struct<const F extends Fields>(fields: F): Struct<F> {
  const names = Object.keys(fields) as (keyof F & string)[];
  const offsets = {} as Record<keyof F, number>;
  let size = 0;
  for (const name of names) {
    offsets[name] = size;
    size += fields[name]!.bytes;
  }
  const read = (view: DataView, at: number): StructValues<F> => {
    const values = {} as Record<keyof F, unknown>;
    for (const name of names) values[name] = fields[name]!.read(view, at + offsets[name]);
    return values as StructValues<F>;
  };
  const write = (view: DataView, at: number, values: Partial<StructValues<F>>): void => {
    for (const name of names) {
      const value = values[name];
      if (value !== undefined) fields[name]!.write(view, at + offsets[name], value);
    }
  };
  return {
    bytes: size,
    offsets,
    read,
    write,
    decode: (buffer, offset = 0) => read(viewOf(buffer), offset),
    encode: (values = {}) => {
      const buffer = new Uint8Array(size);
      write(viewOf(buffer), 0, values);
      return buffer;
    },
    patch: (buffer, values, offset = 0) => write(viewOf(buffer), offset, values),
  };
}

function viewOf(buffer: Uint8Array): DataView {
  return new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}
