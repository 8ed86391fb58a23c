/** The TDMR_INFO array in memory and TDH.SYS.CONFIG (Linux host rules 1.3 e and g). */
import { alignUp, PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { TDH } from '../abi/leaves.ts';
import { encodeTdmrInfo, TDMR_INFO_ALIGNMENT, type TdmrInfo } from '../abi/tdmr-info.ts';
import type { PageAllocator } from './allocator.ts';
import type { Cpu } from './cpu.ts';
import type { LogRing } from './log.ts';
import { seamcallPrerr, setOperands } from './seamcall.ts';
import type { Tdmr, TdmrLimits } from './tdmr.ts';

/** Physically contiguous memory for a table. @public */
export interface TableBuffer {
  readonly base: number;
  readonly pages: number;
  /** Bytes from one entry to the next. */
  readonly strideBytes: number;
}

const TDMR_INFO_HEADER = 64;
const RESERVED_AREA_SIZE = 16;
/** SYS.CONFIG operand R8 bit 16. */
const CONFIG_DYNAMIC_PAMT = 0x1_0000;

/** Zeroed memory for the module's maximum of TDMR_INFOs. Throws ENOMEM. @public */
export function allocTdmrList(cpu: Cpu, allocator: PageAllocator, limits: TdmrLimits): TableBuffer {
  const strideBytes = alignUp(
    TDMR_INFO_HEADER + RESERVED_AREA_SIZE * limits.maxReservedPerTdmr,
    TDMR_INFO_ALIGNMENT,
  );
  return allocTable(cpu, allocator, 'tdmr-list', strideBytes * limits.maxTdmrs, strideBytes);
}

/** A TDMR as the module reads it. @public */
export function tdmrInfo({ start, end, pamt, reservedAreas }: Tdmr): TdmrInfo {
  return {
    base: start,
    size: end - start,
    pamt4kBase: pamt.base,
    pamt4kSize: pamt.bytes4k,
    pamt2mBase: pamt.base + pamt.bytes4k,
    pamt2mSize: pamt.bytes2m,
    pamt1gBase: pamt.base + pamt.bytes4k + pamt.bytes2m,
    pamt1gSize: pamt.bytes1g,
    reserved: reservedAreas.map((area) => ({ offset: area.start - start, size: area.end - area.start })),
  };
}

/** Writes the TDMRs to memory. @public */
export function writeTdmrList(cpu: Cpu, list: TableBuffer, tdmrs: readonly Tdmr[]): void {
  tdmrs.forEach((tdmr, i) => {
    cpu.lp.store(list.base + i * list.strideBytes, encodeTdmrInfo(tdmrInfo(tdmr)));
  });
}

/**
 * Hands the TDMRs and the global KeyID to the module. Throws ENOMEM (the array of addresses) or the wrapper's
 * errno. @public
 */
export function sysConfig(
  cpu: Cpu,
  allocator: PageAllocator,
  list: TableBuffer,
  count: number,
  globalKeyId: number,
  dynamicPamt: boolean,
  log: LogRing,
): void {
  const array = allocTable(cpu, allocator, 'tdmr-pa-array', count * 8, 8);
  const addresses = new BigUint64Array(count).map((_, i) => BigInt(list.base + i * list.strideBytes));
  cpu.lp.store(array.base, new Uint8Array(addresses.buffer));
  try {
    setOperands(cpu, array.base, count, globalKeyId + (dynamicPamt ? CONFIG_DYNAMIC_PAMT : 0));
    seamcallPrerr(cpu, TDH.sysConfig, log);
  } finally {
    freeTable(allocator, array);
  }
}

/** @public */
export function freeTable(allocator: PageAllocator, table: TableBuffer): void {
  allocator.freePages(table.base / PAGE_4K, table.pages);
}

/** Whole pages, a power of two of them: more alignment than any table needs. Zeroed. */
function allocTable(
  cpu: Cpu,
  allocator: PageAllocator,
  purpose: string,
  bytes: number,
  strideBytes: number,
): TableBuffer {
  const order = Math.ceil(Math.log2(Math.ceil(bytes / PAGE_4K)));
  const pfn = allocator.allocPages(order, { node: cpu.lp.node, purpose });
  if (pfn === null) {
    throw new KernelError('ENOMEM', 'table-allocation', `no memory for the ${purpose} (${bytes} bytes)`, {
      purpose,
      bytes,
      order,
    });
  }
  const table = { base: pfn * PAGE_4K, pages: 2 ** order, strideBytes };
  cpu.lp.store(table.base, new Uint8Array(table.pages * PAGE_4K));
  return table;
}
