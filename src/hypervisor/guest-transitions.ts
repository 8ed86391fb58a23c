/** Ownership of memory between host and guests. As in ownership.ts, a refusal is a negative errno and changes nothing. */
import { offsetIn } from '../abi/address.ts';
import { ERRNO } from '../abi/errno.ts';
import { GUEST_PROT } from '../abi/pkvm.ts';
import type { GuestLeaf } from './guest-stage2.ts';
import type { Ownership } from './ownership.ts';
import { PAGE_STATE } from './page-state.ts';
import type { HypVcpu, HypVm } from './vm.ts';

const { OWNED, SHARED_OWNED, SHARED_BORROWED, NOPAGE, POISON } = PAGE_STATE;
const BLOCK_PAGES = 512;
const MAX_GUEST_SHARES = 0xffff_ffff;

/** Gives pages of the host to the loaded vCPU's guest, with their contents. @public */
export function hostDonateGuest(
  o: Ownership,
  vcpu: HypVcpu,
  pfn: number,
  gfn: number,
  pages: number,
): number {
  const { vm } = vcpu;
  const refused =
    checkSize(vm, pfn, gfn, pages) ||
    o.checkHost(pfn, pages, OWNED) ||
    checkEmpty(vm, gfn, pages) ||
    checkMemcache(vcpu, gfn, pages);
  if (refused !== 0) return refused;
  for (let i = 0; i < pages; i++) o.states.giveToGuest(pfn + i, vm.handle, gfn + i);
  o.hostStage2.unmap(pfn, pages);
  mapGuest(vcpu, gfn, pages, pfn, GUEST_PROT.all, OWNED);
  return 0;
}

/** Lends pages to the loaded vCPU's guest; the host goes on using them, and may lend them again. @public */
export function hostShareGuest(
  o: Ownership,
  vcpu: HypVcpu,
  pfn: number,
  gfn: number,
  pages: number,
  prot: number,
): number {
  const { vm } = vcpu;
  if (prot > GUEST_PROT.all) return -ERRNO.EINVAL;
  const refused = checkSize(vm, pfn, gfn, pages) || (o.isMemory(pfn, pages) ? 0 : -ERRNO.EPERM);
  if (refused !== 0) return refused;
  if (!vm.stage2.isEmpty(gfn, pages)) return -ERRNO.EPERM;
  for (let i = 0; i < pages; i++) {
    const lent = checkLendable(o, pfn + i);
    if (lent !== 0) return lent;
  }
  const short = checkMemcache(vcpu, gfn, pages);
  if (short !== 0) return short;
  for (let i = 0; i < pages; i++) {
    o.states.setHost(pfn + i, SHARED_OWNED);
    o.states.addGuestShare(pfn + i, 1);
  }
  mapGuest(vcpu, gfn, pages, pfn, prot, SHARED_BORROWED);
  return 0;
}

/** Takes back pages that were lent to a guest. @public */
export function hostUnshareGuest(o: Ownership, vm: HypVm, gfn: number, pages: number): number {
  const found = findShared(vm, gfn, pages);
  if (typeof found === 'number') return found;
  vm.stage2.unmap(gfn);
  for (let i = 0; i < pages; i++) {
    if (o.states.addGuestShare(found.pfn + i, -1) === 0) o.states.setHost(found.pfn + i, OWNED);
  }
  return 0;
}

/** Adds permissions to a mapping of the loaded vCPU's guest. @public */
export function hostRelaxPerms(vcpu: HypVcpu, gfn: number, prot: number): number {
  const { vm } = vcpu;
  if (vm.isProtected) return -ERRNO.EPERM;
  if (prot > GUEST_PROT.all || !vm.stage2.holds(gfn)) return -ERRNO.EINVAL;
  const leaf = vm.stage2.leaf(gfn);
  if (leaf.state !== SHARED_BORROWED) return -ERRNO.ENOENT;
  mapGuest(vcpu, leaf.gfn, leaf.pages, leaf.pfn, leaf.prot | prot, leaf.state);
  return 0;
}

/** Takes the permission to write from a mapping, so that the host sees the next write. @public */
export function hostWrprotect(vm: HypVm, gfn: number, pages: number): number {
  if (vm.isProtected) return -ERRNO.EPERM;
  const leaf = findShared(vm, gfn, pages);
  if (typeof leaf === 'number') return leaf;
  vm.stage2.map(leaf.gfn, pages, leaf.pfn, leaf.prot & ~GUEST_PROT.write, leaf.state, noTable);
  return 0;
}

/** Turns a block of the loaded vCPU's guest into pages, so that one of them can change hands. @public */
export function hostSplitGuest(vcpu: HypVcpu, gfn: number): number {
  const { stage2 } = vcpu.vm;
  if (!stage2.holds(gfn)) return -ERRNO.EINVAL;
  const leaf = stage2.leaf(gfn);
  if (leaf.state === NOPAGE || leaf.state === POISON) return -ERRNO.ENOENT;
  if (leaf.pages === 1) return 0;
  const table = vcpu.memcache.pop();
  if (table === undefined) return -ERRNO.ENOMEM;
  stage2.split(gfn, table);
  return 0;
}

/** The guest lets the host use one of its pages. @public */
export function guestShareHost(o: Ownership, vm: HypVm, gfn: number): number {
  const leaf = findPage(vm, gfn);
  if (typeof leaf === 'number') return leaf;
  if (leaf.state !== OWNED || o.checkHost(leaf.pfn, 1, NOPAGE) !== 0) return -ERRNO.EPERM;
  vm.stage2.map(gfn, 1, leaf.pfn, GUEST_PROT.all, SHARED_OWNED, noTable);
  o.states.setHost(leaf.pfn, SHARED_BORROWED);
  o.hostStage2.map(leaf.pfn, 1);
  return 0;
}

/** The guest takes the page back for itself. @public */
export function guestUnshareHost(o: Ownership, vm: HypVm, gfn: number): number {
  const leaf = findPage(vm, gfn);
  if (typeof leaf === 'number') return leaf;
  if (leaf.state !== SHARED_OWNED || o.checkHost(leaf.pfn, 1, SHARED_BORROWED) !== 0) return -ERRNO.EPERM;
  o.states.giveToGuest(leaf.pfn, vm.handle, gfn);
  o.hostStage2.unmap(leaf.pfn, 1);
  vm.stage2.map(gfn, 1, leaf.pfn, GUEST_PROT.all, OWNED, noTable);
  return 0;
}

/** Gives pages of a dying guest back to the host: wiped, unless the guest had shared them. @public */
export function reclaimDying(o: Ownership, vm: HypVm, gfn: number, pages: number): number {
  const leaf = findLeaf(vm, gfn, pages);
  // A page that was taken by force is the host's already.
  if (leaf === -ERRNO.EHWPOISON) return 0;
  if (typeof leaf === 'number') return leaf;
  if (leaf.state === SHARED_BORROWED) return -ERRNO.EPERM;
  if (leaf.state === OWNED) o.wipe(leaf.pfn, pages);
  vm.stage2.unmap(gfn);
  o.giveHost(leaf.pfn, pages);
  return 0;
}

/**
 * Gives the host a page of a live guest, which finds it poisoned: the host can destroy what it cannot read.
 * @public
 */
export function forceReclaim(
  o: Ownership,
  vmOf: (handle: number) => HypVm | undefined,
  pfn: number,
  pages: number,
): number {
  if (!o.isMemory(pfn, pages)) return -ERRNO.EFAULT;
  // The host has access: its fault is a thing of the past.
  if (o.states.host(pfn) !== NOPAGE) return -ERRNO.EAGAIN;
  const owner = o.states.guestOwner(pfn);
  if (owner === undefined) return -ERRNO.EPERM;
  const vm = vmOf(owner.handle);
  if (vm === undefined) return -ERRNO.EAGAIN;
  const leaf = findLeaf(vm, owner.gfn, pages);
  if (typeof leaf === 'number') return leaf;
  if (leaf.state !== OWNED || leaf.pfn !== pfn) return -ERRNO.EPERM;
  vm.stage2.poison(owner.gfn);
  o.wipe(pfn, pages);
  o.giveHost(pfn, pages);
  return 0;
}

/** Takes from a live guest a page that it shares with the host, contents and all; the guest finds it poisoned. @public */
export function revokeShared(o: Ownership, vm: HypVm, gfn: number): number {
  const leaf = findPage(vm, gfn);
  if (typeof leaf === 'number') return leaf;
  if (leaf.state !== SHARED_OWNED) return -ERRNO.EPERM;
  vm.stage2.poison(gfn);
  o.giveHost(leaf.pfn, 1);
  return 0;
}

/** The guest says that a page of device registers is at `gfn`: the host may see what is read and written there. @public */
export function markMmio(vcpu: HypVcpu, gfn: number): number {
  const { stage2 } = vcpu.vm;
  if (stage2.leaf(gfn).isMmio) return 0;
  if (!stage2.isEmpty(gfn, 1)) return -ERRNO.EPERM;
  if (vcpu.memcache.length < stage2.tablesMissing(gfn, 1)) return -ERRNO.ENOMEM;
  stage2.markMmio(gfn, () => vcpu.memcache.pop());
  return 0;
}

/** Only a page or an aligned block changes hands at once. */
function checkSize(vm: HypVm, pfn: number, gfn: number, pages: number): number {
  if (pages !== 1 && pages !== BLOCK_PAGES) return -ERRNO.EINVAL;
  const isAligned = pages === 1 || (offsetIn(pfn, BLOCK_PAGES) === 0 && offsetIn(gfn, BLOCK_PAGES) === 0);
  return isAligned && vm.stage2.holds(gfn) && vm.stage2.holds(gfn + pages - 1) ? 0 : -ERRNO.EINVAL;
}

function checkEmpty(vm: HypVm, gfn: number, pages: number): number {
  return vm.stage2.isEmpty(gfn, pages) ? 0 : -ERRNO.EPERM;
}

/** The host lends its own pages, and those that other guests borrow; not what the hypervisor borrows. */
function checkLendable(o: Ownership, pfn: number): number {
  const state = o.states.host(pfn);
  if (state === OWNED) return 0;
  if (state !== SHARED_OWNED) return -ERRNO.EPERM;
  const shares = o.states.guestShares(pfn);
  if (shares === MAX_GUEST_SHARES) return -ERRNO.EBUSY;
  return shares > 0 ? 0 : -ERRNO.EPERM;
}

function checkMemcache(vcpu: HypVcpu, gfn: number, pages: number): number {
  return vcpu.memcache.length < vcpu.vm.stage2.tablesMissing(gfn, pages) ? -ERRNO.ENOMEM : 0;
}

function mapGuest(
  vcpu: HypVcpu,
  gfn: number,
  pages: number,
  pfn: number,
  prot: number,
  state: (typeof PAGE_STATE)[keyof typeof PAGE_STATE],
): void {
  const replaced = vcpu.vm.stage2.map(gfn, pages, pfn, prot, state, () => vcpu.memcache.pop());
  if (replaced !== undefined) vcpu.memcache.push(replaced);
}

function noTable(): undefined {
  return undefined;
}

/** A mapped leaf of exactly that size, or why there is none. */
function findLeaf(vm: HypVm, gfn: number, pages: number): GuestLeaf | number {
  if (!vm.stage2.holds(gfn)) return -ERRNO.EINVAL;
  const leaf = vm.stage2.leaf(gfn);
  if (leaf.state === POISON) return -ERRNO.EHWPOISON;
  if (leaf.state === NOPAGE) return -ERRNO.ENOENT;
  return leaf.pages === pages ? leaf : -ERRNO.E2BIG;
}

function findPage(vm: HypVm, gfn: number): GuestLeaf | number {
  return findLeaf(vm, gfn, 1);
}

/** A leaf of that size that the guest borrows from the host. */
function findShared(vm: HypVm, gfn: number, pages: number): GuestLeaf | number {
  if (pages !== 1 && (pages !== BLOCK_PAGES || offsetIn(gfn, BLOCK_PAGES) !== 0)) return -ERRNO.EINVAL;
  const leaf = findLeaf(vm, gfn, pages);
  if (leaf === -ERRNO.EHWPOISON) return -ERRNO.ENOENT;
  if (typeof leaf === 'number') return leaf;
  return leaf.state === SHARED_BORROWED ? leaf : -ERRNO.EPERM;
}
