/** Lists of pages that host and hypervisor hand each other: each page begins with the address of the next. */
import { PAGE_4K, pfnOf } from '../abi/address.ts';
import type { PhysicalMemory } from '../machine/memory.ts';

/** Head and length of a list, as they stand in a shared page. @public */
export interface PageList {
  /** Physical address of the first page; 0 when there is none. */
  head: number;
  pages: number;
}

/** Puts a page at the head. @internal */
export function pushPage(memory: PhysicalMemory, list: PageList, pfn: number): void {
  memory.write64(pfn * PAGE_4K, BigInt(list.head), 0);
  list.head = pfn * PAGE_4K;
  list.pages++;
}

/** Takes the page at the head; undefined for an empty list, or one whose links lead nowhere. @internal */
export function popPage(memory: PhysicalMemory, list: PageList): number | undefined {
  if (list.pages === 0 || list.head % PAGE_4K !== 0) return undefined;
  const pfn = pfnOf(list.head);
  list.head = Number(memory.read64(list.head, 0));
  list.pages--;
  return pfn;
}
