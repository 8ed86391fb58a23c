/** Numbers as people read them. */

/** `1,050,636`. @internal */
export function formatCount(count: number): string {
  return count.toLocaleString('en-US');
}

/** JSON with bigints as hexadecimal strings, two blanks of indentation. @internal */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `0x${v.toString(16)}` : v), 2);
}
