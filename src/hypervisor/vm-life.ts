/** Making and tearing down VMs and vCPUs. All memory for them is donated by the host, and comes back wiped. */
import { PAGE_4K } from '../abi/address.ts';
import { ERRNO } from '../abi/errno.ts';
import { HOST_VCPU, HOST_VM, HYP_VCPU_PAGES, HYP_VM_PAGES, stage2RootPages } from '../abi/pkvm.ts';
import { GuestStage2 } from './guest-stage2.ts';
import { type PageList, popPage, pushPage } from './memcache.ts';
import type { Ownership } from './ownership.ts';
import { createVcpu, type HypVcpu, type HypVm } from './vm.ts';
import type { VmTable } from './vm-table.ts';

/** Widths of guest addresses that a stage 2 can have (bits). */
const MIN_IPA_BITS = 32;
const MAX_IPA_BITS = 48;

/** Makes the VM that the host's page describes. @public */
export function initVm(
  o: Ownership,
  table: VmTable,
  hostPfn: number,
  statePfn: number,
  rootPfn: number,
): number {
  const pinned = o.pinShared(hostPfn);
  if (pinned !== 0) return pinned;
  const made = makeVm(o, table, hostPfn, statePfn, rootPfn);
  if (made !== 0) o.unpinShared(hostPfn);
  return made;
}

function makeVm(o: Ownership, table: VmTable, hostPfn: number, statePfn: number, rootPfn: number): number {
  const { memory } = o.machine;
  const host = HOST_VM.decode(memory.read(hostPfn * PAGE_4K, HOST_VM.bytes, 0));
  const maxVcpus = Number(host.vcpus);
  const ipaBits = Number(host.ipaBits);
  const handle = Number(host.handle);
  if (maxVcpus < 1 || ipaBits < MIN_IPA_BITS || ipaBits > MAX_IPA_BITS) return -ERRNO.EINVAL;
  const insert = table.checkInsert(handle);
  if (insert !== 0) return insert;
  if (o.hostDonateHyp(statePfn, HYP_VM_PAGES) !== 0) return -ERRNO.ENOMEM;
  if (o.hostDonateHyp(rootPfn, stage2RootPages(ipaBits)) !== 0) {
    o.hypDonateHost(statePfn, HYP_VM_PAGES);
    return -ERRNO.ENOMEM;
  }
  o.wipe(statePfn, HYP_VM_PAGES);
  o.wipe(rootPfn, stage2RootPages(ipaBits));
  table.insert({
    handle,
    isProtected: host.isProtected !== 0n,
    stage2: new GuestStage2(memory, ipaBits, rootPfn),
    hostPfn,
    statePfn,
    maxVcpus,
    vcpus: [],
    isDying: false,
  });
  return 0;
}

/** Makes the next vCPU of a VM. @public */
export function initVcpu(
  o: Ownership,
  table: VmTable,
  handle: number,
  hostPfn: number,
  statePfn: number,
): number {
  if (o.hostDonateHyp(statePfn, HYP_VCPU_PAGES) !== 0) return -ERRNO.ENOMEM;
  o.wipe(statePfn, HYP_VCPU_PAGES);
  const made = makeVcpu(o, table.get(handle), hostPfn, statePfn);
  if (made !== 0) o.hypDonateHost(statePfn, HYP_VCPU_PAGES);
  return made;
}

function makeVcpu(o: Ownership, vm: HypVm | undefined, hostPfn: number, statePfn: number): number {
  if (vm === undefined) return -ERRNO.ENOENT;
  const index = vm.vcpus.length;
  if (vm.isDying || index >= vm.maxVcpus) return -ERRNO.EINVAL;
  if (o.pinShared(hostPfn) !== 0) return -ERRNO.EBUSY;
  const { memory } = o.machine;
  if (Number(memory.read64(hostPfn * PAGE_4K + HOST_VCPU.offsets.index, 0)) !== index) {
    o.unpinShared(hostPfn);
    return -ERRNO.EINVAL;
  }
  vm.vcpus.push(createVcpu(vm, index, statePfn, hostPfn));
  return 0;
}

/** Makes a VM's pages reclaimable, and its vCPUs good for nothing. @public */
export function startTeardown(table: VmTable, handle: number): number {
  const vm = table.get(handle);
  if (vm === undefined) return -ERRNO.ENOENT;
  if (vm.vcpus.some((vcpu) => vcpu.loadedOn !== null)) return -ERRNO.EBUSY;
  if (vm.isDying) return -ERRNO.EINVAL;
  vm.isDying = true;
  return 0;
}

/**
 * Ends a VM: the pages of its tables, vCPUs and state go back by the list in the host's page. A page that the guest
 * owned and that nobody reclaimed stays lost to the host.
 * @public
 */
export function finalizeTeardown(o: Ownership, table: VmTable, handle: number): number {
  const vm = table.get(handle);
  if (vm === undefined) return -ERRNO.ENOENT;
  if (!vm.isDying) return -ERRNO.EBUSY;
  const { stage2 } = vm;
  const pages = [...stage2.tables()];
  for (let i = 0; i < stage2.rootPages; i++) pages.push(stage2.rootPfn + i);
  for (const vcpu of vm.vcpus) {
    pages.push(...vcpu.memcache);
    for (let i = 0; i < HYP_VCPU_PAGES; i++) pages.push(vcpu.statePfn + i);
    o.unpinShared(vcpu.hostPfn);
  }
  pages.push(vm.statePfn);
  returnPages(o, vm.hostPfn, pages);
  o.unpinShared(vm.hostPfn);
  table.remove(handle);
  return 0;
}

function returnPages(o: Ownership, hostPfn: number, pages: readonly number[]): void {
  const { memory } = o.machine;
  const at = hostPfn * PAGE_4K;
  const list: PageList = {
    head: Number(memory.read64(at + HOST_VM.offsets.teardownHead, 0)),
    pages: Number(memory.read64(at + HOST_VM.offsets.teardownPages, 0)),
  };
  for (const pfn of pages) {
    o.wipe(pfn, 1);
    pushPage(memory, list, pfn);
    o.hypDonateHost(pfn, 1);
  }
  memory.write64(at + HOST_VM.offsets.teardownHead, BigInt(list.head), 0);
  memory.write64(at + HOST_VM.offsets.teardownPages, BigInt(list.pages), 0);
}

/**
 * Takes pages that the host listed for a vCPU's tables, until there are as many as the host had listed. -ENOMEM when one
 * of them is not the host's to give.
 * @public
 */
export function refillMemcache(o: Ownership, vcpu: HypVcpu): number {
  const { memory } = o.machine;
  const { memcacheHead, memcachePages } = HOST_VCPU.offsets;
  const at = vcpu.hostPfn * PAGE_4K;
  const list: PageList = {
    head: Number(memory.read64(at + memcacheHead, 0)),
    pages: Number(memory.read64(at + memcachePages, 0)),
  };
  const wanted = list.pages;
  let result = 0;
  while (vcpu.memcache.length < wanted && list.pages > 0 && result === 0) {
    // The page is the hypervisor's before its link is believed: the host may have written anything.
    const isGiven = list.head % PAGE_4K === 0 && o.hostDonateHyp(list.head / PAGE_4K, 1) === 0;
    const pfn = isGiven ? popPage(memory, list) : undefined;
    if (pfn === undefined) result = -ERRNO.ENOMEM;
    else {
      o.wipe(pfn, 1);
      vcpu.memcache.push(pfn);
    }
  }
  memory.write64(at + memcacheHead, BigInt(list.head), 0);
  memory.write64(at + memcachePages, BigInt(list.pages), 0);
  return result;
}
