/** Differences between the abstract state and the real one. */
import { hex } from '../../abi/address.ts';

/** @public */
export interface Difference {
  /** Which object: a page, a KeyID, a TD, a guest address of it, a vCPU. */
  readonly where: string;
  /** Which of its properties. */
  readonly what: string;
  readonly expected: string;
  readonly found: string;
}

type Value = number | bigint | string | boolean | null | undefined;

/** A list of differences that grows. @internal */
export class Differences {
  readonly list: Difference[] = [];

  /** Notes a difference unless both are the same. */
  check(where: string, what: string, expected: Value, found: Value): void {
    if (expected === found) return;
    this.list.push({ where, what, expected: show(expected), found: show(found) });
  }
}

function show(value: Value): string {
  return typeof value === 'number' && value > 0xffff ? hex(value) : String(value);
}

/** One line per difference. @public */
export function formatDifference({ where, what, expected, found }: Difference): string {
  return `${where}: ${what} is ${found}, should be ${expected}`;
}
