import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_MEM, KVM_USERSPACE_MEMORY_REGION } from '../../src/abi/kvm/structs.ts';
import { Memslots } from '../../src/kvm/memslots.ts';
import { KvmSession, PAGE, refusal } from './kvm-session.ts';

const { GUEST_MEMFD, LOG_DIRTY_PAGES, READONLY } = KVM_MEM;
const GIB = 1n << 30n;

async function withVm(type = 0) {
  const session = await KvmSession.start();
  const vm = await session.createVm(type);
  const user = await session.anonymous(8);
  const region = {
    slot: 1,
    guest_phys_addr: GIB,
    memory_size: BigInt(2 * PAGE),
    userspace_addr: BigInt(user),
  };
  const set = (changes: Parameters<KvmSession['setRegion']>[1]): Promise<string> =>
    refusal(session.setRegion(vm, { ...region, ...changes }));
  return { session, vm, user, region, set };
}

describe('KVM_SET_USER_MEMORY_REGION2', () => {
  it('refuses what no slot can be', async () => {
    const { set } = await withVm();
    expect(await set({ slot: 32764 })).toBe('EINVAL slot-id');
    expect(await set({ slot: 0x1_0000 })).toBe('EINVAL slot-address-space');
    expect(await set({ flags: 8 })).toBe('EINVAL slot-flags');
    expect(await set({ flags: GUEST_MEMFD | LOG_DIRTY_PAGES })).toBe('EINVAL slot-flags');
    expect(await set({ flags: GUEST_MEMFD | READONLY })).toBe('EINVAL slot-flags');
    expect(await set({ memory_size: 1n })).toBe('EINVAL slot-size-unaligned');
    expect(await set({ guest_phys_addr: 1n })).toBe('EINVAL slot-gpa-unaligned');
    expect(await set({ userspace_addr: 1n })).toBe('EINVAL slot-user-address');
    expect(await set({ userspace_addr: 1n << 47n })).toBe('EINVAL slot-user-address');
    expect(await set({ flags: GUEST_MEMFD, guest_memfd_offset: 1n })).toBe('EINVAL slot-file-offset');
    expect(await set({ flags: GUEST_MEMFD, guest_memfd_offset: -4096n })).toBe('EINVAL slot-file-offset');
    expect(await set({ guest_phys_addr: -4096n })).toBe('EINVAL slot-gpa-wraps');
    expect(await set({ guest_phys_addr: 1n << 52n })).toBe('EINVAL slot-gpa-beyond');
    expect(await set({ userspace_addr: 0n, memory_size: 1n << 43n })).toBe('EINVAL slot-too-large');
    expect(await set({ memory_size: 0n })).toBe('EINVAL slot-missing');
  });

  it('asks in the order of the kernel', async () => {
    const { set } = await withVm();
    const wrong = {
      slot: 0x1_ffff,
      flags: 8,
      memory_size: 1n,
      guest_phys_addr: 1n,
      userspace_addr: 1n,
    };
    expect(await set(wrong)).toBe('EINVAL slot-id');
    expect(await set({ ...wrong, slot: 0x1_0000 })).toBe('EINVAL slot-flags');
    expect(await set({ ...wrong, slot: 0x1_0000, flags: 0 })).toBe('EINVAL slot-size-unaligned');
    const size = BigInt(PAGE);
    expect(await set({ ...wrong, slot: 0x1_0000, flags: 0, memory_size: size })).toBe(
      'EINVAL slot-gpa-unaligned',
    );
    const sized = { slot: 0x1_0000, flags: 0, memory_size: size, guest_phys_addr: 0n, userspace_addr: 1n };
    expect(await set(sized)).toBe('EINVAL slot-user-address');
    expect(await set({ ...sized, userspace_addr: 0n })).toBe('EINVAL slot-address-space');
  });

  it('lets an existing slot move and change its dirty logging, nothing else', async () => {
    const { session, vm, user, set } = await withVm();
    expect(await set({})).toBe('done');
    expect(await set({})).toBe('done');
    expect(await set({ memory_size: BigInt(PAGE) })).toBe('EINVAL slot-fixed');
    expect(await set({ userspace_addr: BigInt(user + PAGE) })).toBe('EINVAL slot-fixed');
    expect(await set({ flags: READONLY })).toBe('EINVAL slot-fixed');
    expect(await set({ flags: GUEST_MEMFD })).toBe('EINVAL slot-gmem-fixed');
    expect(await set({ flags: LOG_DIRTY_PAGES })).toBe('done');
    expect(await set({ guest_phys_addr: 2n * GIB })).toBe('done');
    expect(session.vm(vm).slots.find(Number(GIB) / PAGE)).toBeUndefined();
    expect(session.vm(vm).slots.find(Number(2n * GIB) / PAGE)?.id).toBe(1);
    expect(await set({ memory_size: 0n })).toBe('done');
    expect(session.vm(vm).slots.size).toBe(0);
  });

  it('keeps slots apart', async () => {
    const { set } = await withVm();
    expect(await set({})).toBe('done');
    expect(await set({ slot: 2, guest_phys_addr: GIB + BigInt(PAGE) })).toBe('EEXIST slot-overlaps');
    expect(await set({ slot: 2, guest_phys_addr: GIB - BigInt(PAGE) })).toBe('EEXIST slot-overlaps');
    expect(await set({ slot: 2, guest_phys_addr: GIB + BigInt(2 * PAGE) })).toBe('done');
    expect(await set({ slot: 2, guest_phys_addr: GIB })).toBe('EEXIST slot-overlaps');
  });

  it('binds files of its own VM, where nobody else has them', async () => {
    const { session, vm, set } = await withVm(1);
    const other = await session.createVm(1);
    const file = await session.createFile(vm, 4);
    const foreign = await session.createFile(other, 4);
    const gmem = { flags: GUEST_MEMFD, guest_memfd: file };
    expect(await set({ ...gmem, guest_memfd: 999 })).toBe('EBADF bad-descriptor');
    expect(await set({ ...gmem, guest_memfd: vm })).toBe('EINVAL gmem-not-guest-memfd');
    expect(await set({ ...gmem, guest_memfd: foreign })).toBe('EINVAL gmem-other-vm');
    expect(await set({ ...gmem, guest_memfd_offset: BigInt(3 * PAGE) })).toBe('EINVAL gmem-bind-beyond');
    expect(await set({ ...gmem, guest_phys_addr: 1n << 52n })).toBe('EINVAL slot-gpa-beyond');
    expect(await set(gmem)).toBe('done');
    expect(await set(gmem)).toBe('EINVAL slot-gmem-fixed');
    expect(await set({ ...gmem, slot: 2, guest_phys_addr: 2n * GIB, guest_memfd_offset: BigInt(PAGE) })).toBe(
      'EEXIST gmem-range-bound',
    );
    // Guest frames are looked at before the file.
    expect(await set({ ...gmem, slot: 2, guest_memfd: 999 })).toBe('EEXIST slot-overlaps');
    expect(await set({ memory_size: 0n })).toBe('done');
    expect(await set({ ...gmem, slot: 2 })).toBe('done');
  });

  it('has as many slots as it says', async () => {
    const { session, vm, set } = await withVm();
    const { slots } = session.vm(vm);
    for (let slot = 0; slot < 32764; slot++) {
      slots.set({
        id: slot,
        baseGfn: 4 * slot,
        pages: 2,
        flags: 0,
        userspaceAddress: 0,
        backing: null,
        backingIndex: 0,
        isBackingOnly: false,
      });
    }
    expect(slots.size).toBe(32764);
    expect(await set({ slot: 32764, guest_phys_addr: 1n << 40n })).toBe('EINVAL slot-id');
  });
});

describe('KVM_SET_USER_MEMORY_REGION', () => {
  it('has the older structure and flags', async () => {
    const { session, vm, region } = await withVm();
    const set = (flags: number): Promise<string> =>
      refusal(
        session.task.ioctl(
          vm,
          KVM.SET_USER_MEMORY_REGION,
          KVM_USERSPACE_MEMORY_REGION.encode({ ...region, flags }),
        ),
      );
    expect(await set(GUEST_MEMFD)).toBe('EINVAL slot-flags');
    expect(await set(READONLY)).toBe('done');
    expect(await refusal(session.task.ioctl(vm, KVM.SET_USER_MEMORY_REGION, new Uint8Array(31)))).toBe(
      'EFAULT buffer-too-short',
    );
  });
});

describe('slots', () => {
  it('agree with a plain list after any changes', () => {
    const change = fc.record({
      id: fc.nat(7),
      baseGfn: fc.nat(60),
      pages: fc.integer({ min: 1, max: 8 }),
      isDeletion: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 60 }), (changes) => {
        const slots = new Memslots();
        const model = new Map<number, { baseGfn: number; pages: number }>();
        for (const { id, baseGfn, pages, isDeletion } of changes) {
          const isFree = [...model].every(
            ([other, slot]) =>
              other === id || slot.baseGfn >= baseGfn + pages || baseGfn >= slot.baseGfn + slot.pages,
          );
          const overlapping = slots.overlapping(baseGfn, baseGfn + pages).filter((slot) => slot.id !== id);
          expect(overlapping.length === 0).toBe(isFree);
          if (isDeletion) {
            slots.delete(id);
            model.delete(id);
          } else if (isFree) {
            const rest = {
              flags: 0,
              userspaceAddress: 0,
              backing: null,
              backingIndex: 0,
              isBackingOnly: false,
            };
            slots.set({ id, baseGfn, pages, ...rest });
            model.set(id, { baseGfn, pages });
          }
          expect(slots.size).toBe(model.size);
        }
        for (let gfn = 0; gfn < 70; gfn++) {
          const [id] = [...model].find(([, s]) => s.baseGfn <= gfn && gfn < s.baseGfn + s.pages) ?? [];
          expect(slots.find(gfn)?.id).toBe(id);
        }
        const order = [...slots].map((slot) => slot.baseGfn);
        expect(order).toEqual([...order].sort((a, b) => a - b));
      }),
    );
  });
});
