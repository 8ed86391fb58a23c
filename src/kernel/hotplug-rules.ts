/** Which memory may be added, and which may go online, while TDX is enabled (Linux host rules 1.8, 5.9). */
import { type AddressRange, contains, formatRange, PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import type { TdxMemoryBlock } from './memlist.ts';
import type { HotplugPolicy } from './policy/kernel-policy.ts';

/** Whether a range lies in one entry of the TDX memory list. @internal */
export function isInMemlist(range: AddressRange, memlist: readonly TdxMemoryBlock[]): boolean {
  return memlist.some((block) =>
    contains({ start: block.startPfn * PAGE_4K, end: block.endPfn * PAGE_4K }, range),
  );
}

/** Throws EPERM where memory must not be added. Before TDX memory is fixed any may be. @internal */
export function checkMayAdd(
  range: AddressRange,
  memlist: readonly TdxMemoryBlock[],
  policy: HotplugPolicy,
): void {
  if (memlist.length === 0) return;
  if (policy === 'refuse-all' || policy === 'winner-takes-all') {
    throw refusal(range, 'tdx-is-on', 'is refused: TDX is enabled, and no memory is added then', { policy });
  }
  if (policy === 'reject-at-add') checkIsTdxMemory(range, memlist);
}

/** Policies under which memory that is no TDX memory goes online. */
const MIXED: ReadonlySet<HotplugPolicy> = new Set(['allow', 'separate-zone', 'separate-node']);

/**
 * TDX's notifier: with TDX memory fixed, what goes online must lie in one entry of its list, or the page allocator
 * would hand TDs memory the module does not know. Throws EPERM.
 * @public
 */
export function checkGoingOnline(
  range: AddressRange,
  memlist: readonly TdxMemoryBlock[],
  policy: HotplugPolicy,
): void {
  if (memlist.length > 0 && !MIXED.has(policy)) checkIsTdxMemory(range, memlist);
}

function checkIsTdxMemory(range: AddressRange, memlist: readonly TdxMemoryBlock[]): void {
  if (isInMemlist(range, memlist)) return;
  throw refusal(
    range,
    'not-tdx-memory',
    'does not lie in one entry of the TDX memory list, which is fixed since TDX was initialised',
  );
}

function refusal(
  { start, end }: AddressRange,
  code: string,
  what: string,
  data: Record<string, unknown> = {},
): KernelError {
  const range = { start, end };
  return new KernelError('EPERM', code, `memory ${formatRange(range)} ${what}`, { range, ...data });
}
