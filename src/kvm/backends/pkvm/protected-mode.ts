/** kvm-arm.mode=protected: the kernel gives the hypervisor its memory and gives up its own privileges. */
import { pfnOf } from '../../../abi/address.ts';
import type { Reason } from '../../../abi/errno.ts';
import { HOST_CALL } from '../../../abi/pkvm.ts';
import { onlineCpus } from '../../../kernel/cpu.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import { hypCall } from './hyp-call.ts';

/** Bytes that the hypervisor keeps of every page, and pages of one of its page tables. */
const RECORD_BYTES = 8;
const TABLE_ENTRIES = 512;
const TABLE_LEVELS = 4;

const DONE = new WeakSet<HostKernel>();

/** Why the host has no protected VMs; null once it has them. Does its work once. @internal */
export function enterProtectedMode(kernel: HostKernel): Reason | null {
  const { machine, allocator, cpus } = kernel;
  if (DONE.has(kernel)) return null;
  if (machine.hypervisor?.name !== 'pkvm') {
    return { code: 'pkvm-no-hypervisor', text: 'no pKVM hypervisor runs below the kernel', data: {} };
  }
  const pages = hypervisorPages(pfnOf(Math.max(...machine.presentMemory.map(({ end }) => end))));
  const pfn = allocator.allocContig(pages, { node: 0, purpose: 'pkvm' });
  if (pfn === null) {
    const text = `no ${pages} contiguous pages are left for the hypervisor`;
    return { code: 'pkvm-no-memory', text, data: { pages } };
  }
  const online = onlineCpus(cpus);
  const result = hypCall(online[0]!.lp, HOST_CALL.pkvmInit, pfn, pages);
  if (result !== 0) throw new Error(`the hypervisor refused its memory: ${result}`);
  for (const { lp } of online) hypCall(lp, HOST_CALL.protFinalize);
  DONE.add(kernel);
  return null;
}

/** A record for every page, and tables that map all memory by pages. @internal */
export function hypervisorPages(memoryPages: number): number {
  let pages = Math.ceil((memoryPages * RECORD_BYTES) / 4096);
  for (let level = 0, entries = memoryPages; level < TABLE_LEVELS; level++) {
    entries = Math.ceil(entries / TABLE_ENTRIES);
    pages += entries;
  }
  return pages;
}
