/** Slots, attributes, files, page tables and what the hardware holds tell one story. */
import { hex, offsetIn, PAGE_4K } from '../../abi/address.ts';
import type { Process } from '../../kernel/process/process.ts';
import { PkvmBackend } from '../../kvm/backends/pkvm/pkvm-backend.ts';
import { SnpBackend } from '../../kvm/backends/snp/snp-backend.ts';
import { TdxBackend } from '../../kvm/backends/tdx/tdx-backend.ts';
import { isPrivateFrame } from '../../kvm/fault.ts';
import { GuestMemfdFile } from '../../kvm/guest-memfd/file.ts';
import type { Memslot } from '../../kvm/memslots.ts';
import { describeMapping, type GuestMapping } from './guest-mappings.ts';
import { type HostLook, isAtWork, isChanging, type VmLook } from './host-look.ts';
import type { OwnershipInvariant } from './ownership-invariant.ts';

/** What a guest maps lies in a slot, or the slot is going. @public */
export const mappingsLieInSlots: OwnershipInvariant = function* (look) {
  for (const { view, mapping } of settledMappings(look)) {
    if (view.vm.slots.find(mapping.gfn) === undefined) yield `${describeMapping(mapping)} lies in no slot`;
  }
};

/** What a guest maps as private is private by attribute, and what it maps as shared is shared. @public */
export const mappingsHaveTheAttribute: OwnershipInvariant = function* (look) {
  for (const { view, mapping } of settledMappings(look)) {
    const { vm } = view;
    // Under pKVM the guest shares its page first, and KVM hears of it.
    if (!mapping.isPrivate && vm.backend instanceof PkvmBackend) continue;
    for (let gfn = mapping.gfn; gfn < mapping.gfn + mapping.pages; gfn++) {
      if (isPrivateFrame(vm, vm.slots.find(gfn), gfn) === mapping.isPrivate) continue;
      const kind = mapping.isPrivate ? 'private' : 'shared';
      yield `${describeMapping(mapping)} is mapped as ${kind}, and 0x${gfn.toString(16)} has the other attribute`;
    }
  }
};

/** A mapping leads to the page that its file, or the process' memory, has there now. @public */
export const mappingsLeadToTheirBacking: OwnershipInvariant = function* (look) {
  for (const { view, mapping } of settledMappings(look)) {
    const slot = view.vm.slots.find(mapping.gfn);
    if (slot === undefined) continue;
    const backed = backingPfn(slot, mapping, view.vm.process);
    if (backed !== undefined && backed !== mapping.pfn) {
      yield `${describeMapping(mapping)} should lead to ${backed === null ? 'nothing' : hex(backed * PAGE_4K)}`;
    }
  }
};

/** A TLB has nothing that the tables have no more, unless it is flushed before the guest runs again. @public */
export const tlbsFollowTables: OwnershipInvariant = function* ({ vms }) {
  for (const { mappings } of vms) {
    const cached = mappings.filter(({ cachedBy }) => cachedBy !== null);
    if (cached.length === 0) continue;
    const tables = mappings.filter(({ cachedBy }) => cachedBy === null);
    for (const mapping of cached) {
      const { gfn, pfn } = mapping;
      const isThere = tables.some(
        (table) => table.gfn <= gfn && gfn < table.gfn + table.pages && gfn - table.gfn === pfn - table.pfn,
      );
      if (!isThere) yield `${describeMapping(mapping)} is in no table any more`;
    }
  }
};

/** KVM's own record of what a guest maps is what the hardware has. @public */
export const kvmKnowsTheTables: OwnershipInvariant = function* ({ vms }) {
  for (const view of vms) {
    if (isAtWork(view) || view.vm.bugged !== null) continue;
    for (const mapping of view.mappings) {
      const known = recordedPfn(view, mapping);
      if (known !== undefined && known !== mapping.pfn) {
        yield `${describeMapping(mapping)} is ${known === null ? 'not known to KVM' : `${hex(known * PAGE_4K)} to KVM`}`;
      }
    }
  }
};

/** The RMP gives a guest the private pages that its nested tables lead to, and none of the shared ones. @public */
export const rmpAgreesWithNestedTables: OwnershipInvariant = function* ({ kernel, vms }) {
  const rmp = kernel.machine.snp?.rmp;
  for (const view of rmp === undefined ? [] : vms) {
    const { backend } = view.vm;
    if (!(backend instanceof SnpBackend) || isAtWork(view)) continue;
    for (const mapping of view.mappings) {
      if (isChanging(view, mapping)) continue;
      for (let i = 0; i < mapping.pages; i++) {
        const isOwned =
          rmp!.isAssigned(mapping.pfn + i) &&
          rmp!.covering(mapping.pfn + i).asid === backend.guest.asid &&
          rmp!.gpaOf(mapping.pfn + i) === (mapping.gfn + i) * PAGE_4K;
        if (isOwned !== mapping.isPrivate) {
          yield `${describeMapping(mapping)} is ${mapping.isPrivate ? 'private' : 'shared'}, and the RMP says otherwise`;
        }
      }
    }
  }
};

/** Every page table entry and every pin holds a reference to its page. @public */
export const referencesCoverMappings: OwnershipInvariant = function* ({ kernel, userPages }) {
  const entries = new Map<number, number>();
  for (const { pfn } of userPages) entries.set(pfn, (entries.get(pfn) ?? 0) + 1);
  for (const [pfn, mapped] of entries) {
    const needed = mapped + kernel.pageRefs.pins(pfn);
    const held = kernel.pageRefs.count(pfn);
    if (held < needed)
      yield `the page at ${hex(pfn * PAGE_4K)} has ${held} references and ${needed} that use it`;
  }
};

/** No VM breaks: whatever user space and guests do, KVM's calls to what protects them succeed. @public */
export const noVmBreaks: OwnershipInvariant = function* ({ vms }) {
  for (const { vm } of vms) {
    if (vm.bugged !== null) yield `the VM is broken: ${vm.bugged}`;
    if (!(vm.backend instanceof TdxBackend)) continue;
    for (const { address, why } of vm.backend.td.host.pages.leaked)
      yield `page ${hex(address)} leaked: ${why}`;
  }
};

/** Mappings in tables that nobody is changing just now. */
function* settledMappings({
  vms,
}: HostLook): Generator<{ readonly view: VmLook; readonly mapping: GuestMapping }> {
  for (const view of vms) {
    for (const mapping of view.mappings) {
      if (mapping.cachedBy === null && !isChanging(view, mapping)) yield { view, mapping };
    }
  }
}

/** Page frame that backs a mapping; null for none, undefined where nothing can be told. */
function backingPfn(slot: Memslot, mapping: GuestMapping, process: Process): number | null | undefined {
  const index = mapping.gfn - slot.baseGfn;
  const { backing } = slot;
  if (mapping.isPrivate || slot.isBackingOnly) {
    if (!(backing instanceof GuestMemfdFile)) return undefined;
    return backing.inode.pageAt(slot.backingIndex + index) ?? null;
  }
  return process.memory.pfnAt(slot.userspaceAddress / PAGE_4K + index);
}

/** What KVM has on record for a mapping; null for nothing, undefined where it keeps no record beside the tables. */
function recordedPfn({ vm }: VmLook, { gfn, isPrivate }: GuestMapping): number | null | undefined {
  const { backend } = vm;
  if (backend instanceof TdxBackend && isPrivate) return backend.ept.mirror.pfn(gfn) ?? null;
  if (!(backend instanceof PkvmBackend)) return undefined;
  const mapping = backend.pkvm.mappings.find(gfn);
  return mapping === undefined ? null : mapping.pfn + offsetIn(gfn - mapping.gfn, 512);
}
