/**
 * Failures on purpose, named by a word:
 * `seamcall:N` the N-th SEAMCALL (from 1); `LEAF` or `LEAF#N` the first or N-th call of a leaf
 * (`TDH.SYS.KEY.CONFIG#2`); `alloc:N` or `alloc:PURPOSE` the N-th allocation of the bring-up, or the first for that
 * purpose (`alloc:pamt`). A SEAMCALL failure may name its status: `TDH.SYS.INIT=TDX_SYS_BUSY` or `=0x8000...`.
 */
import { InputError } from '../abi/input-error.ts';
import { hostLeafName, LEAVES } from '../abi/leaves.ts';
import { RAX } from '../abi/registers.ts';
import { STATUS, type StatusName } from '../abi/status-codes.ts';
import type { PageAllocator } from '../kernel/allocator.ts';
import type { Machine } from '../machine/machine.ts';

/** Status of an injected SEAMCALL failure that names none: one that any leaf may give and no wrapper retries. */
const DEFAULT_STATUS = STATUS.TDX_SYS_BUSY;

/** @public */
export type FailurePoint =
  | { readonly kind: 'seamcall'; readonly leaf: number | null; readonly nth: number; readonly status: bigint }
  | { readonly kind: 'allocation'; readonly purpose: string | null; readonly nth: number };

/** Reads a failure point. Throws InputError. @public */
export function parseFailurePoint(text: string): FailurePoint {
  const { target = '', status } = /^(?<target>[^=]+)(?:=(?<status>.+))?$/.exec(text)?.groups ?? {};
  const allocation = /^alloc:(?:(?<nth>\d+)|(?<purpose>[a-z][\w-]*))$/.exec(target)?.groups;
  if (allocation !== undefined && status === undefined) {
    return {
      kind: 'allocation',
      purpose: allocation.purpose ?? null,
      nth: positive(allocation.nth ?? '1', text),
    };
  }
  const numbered = /^seamcall:(\d+)$/.exec(target);
  if (numbered !== null) {
    return { kind: 'seamcall', leaf: null, nth: positive(numbered[1]!, text), status: parseStatus(status) };
  }
  const { name = '', nth = '1' } = /^(?<name>[A-Za-z.]+)(?:#(?<nth>\d+))?$/.exec(target)?.groups ?? {};
  const leaf = LEAVES.find((known) => known.side === 'host' && known.name === name.toUpperCase());
  if (leaf === undefined) {
    throw new InputError(
      `--fail-at: '${text}' is no failure point; use seamcall:N, a host leaf such as TDH.SYS.CONFIG or TDH.SYS.TDMR.INIT#5, ` +
        'optionally =STATUS, or alloc:N or alloc:pamt',
    );
  }
  return { kind: 'seamcall', leaf: leaf.number, nth: positive(nth, text), status: parseStatus(status) };
}

function positive(digits: string, text: string): number {
  const value = Number(digits);
  if (value < 1) throw new InputError(`--fail-at: '${text}' counts from 1`);
  return value;
}

function parseStatus(text: string | undefined): bigint {
  if (text === undefined) return DEFAULT_STATUS;
  if (text in STATUS) return STATUS[text as StatusName];
  if (/^0x[0-9a-f]{1,16}$/i.test(text)) return BigInt(text);
  throw new InputError(`--fail-at: '${text}' is neither a status name nor a 64-bit hexadecimal number`);
}

/** Names a failure point for messages. @public */
export function describeFailurePoint(point: FailurePoint): string {
  if (point.kind === 'allocation') {
    return point.purpose === null
      ? `allocation ${point.nth}`
      : `allocation ${point.nth} for ${point.purpose}`;
  }
  return point.leaf === null ? `SEAMCALL ${point.nth}` : `call ${point.nth} of ${hostLeafName(point.leaf)}`;
}

/** How far a failure on purpose got. @public */
export class FailureWatch {
  /** SEAMCALLs or allocations so far of the kind that the point counts. */
  counted = 0;
  reached = false;
  /** What allocations were for. */
  readonly purposes = new Set<string>();

  /** Counts one more; true when it is the one to fail. */
  count(nth: number): boolean {
    this.counted++;
    if (this.counted !== nth) return false;
    this.reached = true;
    return true;
  }
}

/**
 * Arms a failure: the SEAMCALL is not executed and answers with the status, the allocation finds no memory. Calls
 * count from now on, allocations by the purpose they are made for.
 * @public
 */
export function armFailure(machine: Machine, allocator: PageAllocator, point: FailurePoint): FailureWatch {
  const watch = new FailureWatch();
  if (point.kind === 'allocation') {
    allocator.fault = (purpose) => {
      watch.purposes.add(purpose);
      return (point.purpose === null || point.purpose === purpose) && watch.count(point.nth);
    };
  } else {
    machine.seam.fault = (lp) => {
      const counts = point.leaf === null || (lp.regs.d[2 * RAX]! & 0xffff) === point.leaf;
      return counts && watch.count(point.nth) ? point.status : undefined;
    };
  }
  return watch;
}

/** One sentence on a failure that did not come about. @public */
export function describeMiss(point: FailurePoint, { counted, purposes }: FailureWatch): string {
  if (point.kind === 'allocation' && point.purpose !== null) {
    return `nothing was allocated for '${point.purpose}', only for ${[...purposes].join(', ')}`;
  }
  const counts = counted === 0 ? 'there was none' : `there were only ${counted}`;
  return `${describeFailurePoint(point)} was never reached: ${counts}`;
}
