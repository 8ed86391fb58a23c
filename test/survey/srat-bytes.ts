/** Builds binary SRATs for the tests. */
export interface SratStructure {
  readonly type: number;
  readonly bytes: readonly number[];
}

const le = (value: number, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, i) => Math.floor(value / 2 ** (8 * i)) % 256);

export function memoryStructure(domain: number, base: number, length: number, flags = 1): SratStructure {
  const bytes = [...le(domain, 4), 0, 0, ...le(base, 8), ...le(length, 8), 0, 0, 0, 0, ...le(flags, 4)];
  return { type: 1, bytes: [...bytes, ...new Array<number>(8).fill(0)] };
}

export function apicStructure(domain: number, apicId: number, flags = 1): SratStructure {
  return {
    type: 0,
    bytes: [domain % 256, apicId, ...le(flags, 4), 0, ...le(Math.floor(domain / 256), 3), 0, 0, 0, 0],
  };
}

export function x2apicStructure(domain: number, apicId: number, flags = 1): SratStructure {
  return {
    type: 2,
    bytes: [0, 0, ...le(domain, 4), ...le(apicId, 4), ...le(flags, 4), ...new Array<number>(8).fill(0)],
  };
}

export function sratTable(structures: readonly SratStructure[], revision = 3): Uint8Array {
  const body = structures.flatMap(({ type, bytes }) => [type, bytes.length + 2, ...bytes]);
  const header = [...'SRAT'].map((letter) => letter.charCodeAt(0));
  const table = Uint8Array.from([
    ...header,
    ...le(48 + body.length, 4),
    revision,
    0,
    ...new Array<number>(38).fill(0),
    ...body,
  ]);
  table[9] = (256 - (table.reduce((sum, byte) => sum + byte, 0) % 256)) % 256;
  return table;
}
