/** GUIDs as firmware stores them. */

/**
 * The 16 bytes of a GUID written as `e47a6535-984a-4798-865e-4685a7bf8ec2`: the first three groups little endian, the
 * others as they are read.
 * @public
 */
export function guidBytes(text: string): Uint8Array {
  const groups = text.split('-').map((group) => Buffer.from(group, 'hex'));
  return Buffer.concat(groups.map((group, i) => (i < 3 ? group.reverse() : group)));
}
