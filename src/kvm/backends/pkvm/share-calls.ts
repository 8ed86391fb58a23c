/** Hypercalls of a protected guest that concern the file behind its memory: pages change kind in place. */
import { pfnOf } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { CALL_NEEDS, GUEST_CALL, SMCCC, setSignedRegister, X } from '../../../abi/pkvm.ts';
import { convert } from '../../guest-memfd/convert.ts';
import { GuestMemfdFile } from '../../guest-memfd/file.ts';
import type { Vcpu } from '../../vcpu.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import type { PkvmExit, PkvmVcpu } from './pkvm-vcpu.ts';
import type { PkvmVm } from './pkvm-vm.ts';

const HANDLED: VcpuExit = { kind: 'handled' };

/** Does what the call needs of the host; the guest hears of it at the next entry. @internal */
export async function guestCall(
  pkvm: PkvmVm,
  made: PkvmVcpu,
  { exit, call, needs }: PkvmExit,
): Promise<VcpuExit> {
  const { vcpu } = made;
  const gfn = pfnOf(exit.gpa);
  if (needs === CALL_NEEDS.page) {
    return { kind: 'page-fault', gpa: exit.gpa, isPrivate: true, access: 'write', emulate: null };
  }
  if (needs === CALL_NEEDS.split) {
    const mapping = pkvm.mappings.find(gfn);
    if (mapping !== undefined && mapping.level > 0) pkvm.split(mapping);
    return HANDLED;
  }
  // Pages for tables are listed before every entry.
  if (needs === CALL_NEEDS.tables) return HANDLED;
  const status = await statusOf(vcpu, call, gfn);
  vcpu.regs.q.fill(0n);
  setSignedRegister(vcpu.regs, X.x0, status);
  made.unshares = call === GUEST_CALL.memUnshare && status === SMCCC.success ? gfn : null;
  return HANDLED;
}

/**
 * Right before an entry at which the guest takes a page back: user space may be making it shared again since KVM agreed,
 * and then the guest hears that it cannot be. @internal
 */
export function confirmUnshare(made: PkvmVcpu): void {
  const { vcpu, unshares: gfn } = made;
  made.unshares = null;
  if (gfn === null) return;
  const { slots, invalidations } = vcpu.vm;
  const slot = slots.find(gfn);
  const isShared = slot?.backing?.tracksPrivate === true && !slot.backing.isPrivate(slot, gfn);
  if (!isShared && !invalidations.isUnderWay(gfn, gfn + 1)) return;
  setSignedRegister(vcpu.regs, X.x0, SMCCC.invalidParameter);
}

async function statusOf(vcpu: Vcpu, call: number, gfn: number): Promise<number> {
  if (call !== GUEST_CALL.memShare && call !== GUEST_CALL.memUnshare) return SMCCC.notSupported;
  const isPrivate = call === GUEST_CALL.memUnshare;
  try {
    await convertFrame(vcpu, gfn, isPrivate);
    return SMCCC.success;
  } catch (error) {
    // Somebody still uses the page, so the guest cannot have it for itself: it may ask again.
    if (error instanceof KernelError) return SMCCC.invalidParameter;
    throw error;
  }
}

/** Where the file itself says what is private, it learns of the change; user space must have let go first. */
async function convertFrame({ vm }: Vcpu, gfn: number, isPrivate: boolean): Promise<void> {
  const slot = vm.slots.find(gfn);
  const backing = slot?.backing;
  if (slot === undefined || !(backing instanceof GuestMemfdFile) || !backing.tracksPrivate) return;
  const index = gfn - slot.baseGfn + slot.backingIndex;
  await convert(backing.inode, index, index + 1, isPrivate);
}
