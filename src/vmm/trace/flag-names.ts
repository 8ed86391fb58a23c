/** Numbers as the names that programs give them. */
import { hex } from '../../abi/address.ts';

/** `PROT_READ|PROT_WRITE`; what has no name as a number, nothing as 0. @internal */
export function flagNames(
  prefix: string,
  names: Readonly<Record<string, number | bigint>>,
  value: number | bigint,
): string {
  let rest = BigInt(value);
  const found: string[] = [];
  for (const [name, flag] of Object.entries(names)) {
    const bits = BigInt(flag);
    if (bits === 0n || (rest & bits) !== bits) continue;
    found.push(prefix + name);
    rest &= ~bits;
  }
  if (rest !== 0n || found.length === 0) found.push(rest === 0n ? '0' : hex(rest));
  return found.join('|');
}

/** `KVM_CAP_GUEST_MEMFD`, or the number. @internal */
export function nameOf(prefix: string, names: Readonly<Record<string, number>>, value: number): string {
  const found = Object.entries(names).find(([, number]) => number === value);
  return found === undefined ? hex(value) : prefix + found[0];
}
