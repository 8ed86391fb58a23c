/** Changes the slots of a VM once a change has been found good: guests lose what they map before a slot goes. */
import { KVM_X86_QUIRK } from '../abi/kvm/capabilities.ts';
import type { Memslot } from './memslots.ts';
import type { Vm } from './vm.ts';

/** @public */
export type SlotChange = 'create' | 'delete' | 'move' | 'flags';

/** Caller holds slotsLock. `old` is the slot before, `slot` the one after the change. @public */
export async function changeSlot(
  vm: Vm,
  change: SlotChange,
  old: Memslot | undefined,
  slot: Memslot | null,
): Promise<void> {
  if (old !== undefined && (change === 'delete' || change === 'move')) {
    // From here on faults in the slot wait for the end of the change.
    vm.slots.markInvalid(old);
    await vm.kernel.schedule?.('slot-invalid');
    const [startGfn, endGfn] = zapsAll(vm) ? [0, GFN_END] : [old.baseGfn, old.baseGfn + old.pages];
    await vm.mmuLock.run(() => vm.backend.zap(startGfn, endGfn, 'both'));
    await vm.kernel.schedule?.('slot-zapped');
  }
  await vm.hostMemory.settled();
  if (slot !== null) vm.slots.set(slot);
  else if (old !== undefined) {
    vm.slots.delete(old.id);
    await old.backing?.unbind(old);
  }
}

/** Guest frames end where physical addresses of 52 bits do. */
const GFN_END = 2 ** 40;

/** KVM_X86_QUIRK_SLOT_ZAP_ALL is for VMs of the default type only. */
function zapsAll({ backend, disabledQuirks }: Vm): boolean {
  return backend.name === 'plain' && (disabledQuirks & KVM_X86_QUIRK.SLOT_ZAP_ALL) === 0;
}
