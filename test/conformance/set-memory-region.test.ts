/** The cases of the public selftest set_memory_region_test, restated: S1 to S4 and the errors of facts about slots. */
import { describe, expect, it } from 'vitest';
import { KVM_CAP } from '../../src/abi/kvm/capabilities.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_MEM, KVM_USERSPACE_MEMORY_REGION } from '../../src/abi/kvm/structs.ts';
import { PAGE, type Region, refused, type Session, TWO_MIB } from './session.ts';
import { SUBJECTS } from './subjects.ts';

const BASE = 0x1_0000_0000n;
const FLAG_BITS = 32;

describe.each(SUBJECTS)('set_memory_region_test on $name', ({ start, skipped }) => {
  const test = (name: string, body: (session: Session) => Promise<unknown>, timeoutMs = 5000): void => {
    it.skipIf(skipped !== null)(
      name,
      async () => {
        const subject = await start();
        await body(subject.session);
        await subject.session.end();
        await subject.expectBalanced();
      },
      timeoutMs,
    );
  };

  const setOldRegion = (s: Session, vm: number, flags: number, memory: number): Promise<number> => {
    const region = {
      slot: 10,
      flags,
      guest_phys_addr: BASE,
      memory_size: BigInt(PAGE),
      userspace_addr: BigInt(memory),
    };
    return s.calls.ioctl(vm, KVM.SET_USER_MEMORY_REGION, KVM_USERSPACE_MEMORY_REGION.encode(region));
  };

  test('S1 flags: the old call knows no guest_memfd, neither knows bits to come', async (s) => {
    const vm = await s.createVm();
    const memory = await s.anonymous(PAGE);
    const readOnly = (await s.capability(vm, KVM_CAP.READONLY_MEM)) > 0 ? KVM_MEM.READONLY : 0;
    const region = {
      slot: 10,
      guest_phys_addr: BASE,
      memory_size: BigInt(PAGE),
      userspace_addr: BigInt(memory),
    };
    for (let bit = 0; bit < FLAG_BITS; bit++) {
      const flags = 2 ** bit;
      const isKnown = flags === KVM_MEM.LOG_DIRTY_PAGES || flags === readOnly;
      if (isKnown) continue;
      await refused(setOldRegion(s, vm, flags, memory), 'EINVAL');
      if (flags !== KVM_MEM.GUEST_MEMFD) await refused(s.setRegion(vm, { ...region, flags }), 'EINVAL');
    }
    const file = await s.createFile(vm, PAGE);
    for (const other of [KVM_MEM.LOG_DIRTY_PAGES, KVM_MEM.READONLY]) {
      const flags = KVM_MEM.GUEST_MEMFD | other;
      await refused(s.setRegion(vm, { ...region, flags, guest_memfd: file }), 'EINVAL');
    }
    await s.calls.munmap(memory, PAGE);
  });

  test('S2 max slots: as many as the capability says', async (s) => {
    if (s.quirks.isReal === true) return;
    const vm = await s.createVm();
    const count = await s.capability(vm, KVM_CAP.NR_MEMSLOTS);
    const memory = await s.anonymous(PAGE);
    const at = (slot: number): Region => ({
      slot,
      flags: 0,
      guest_phys_addr: BASE + BigInt(slot) * BigInt(PAGE),
      memory_size: BigInt(PAGE),
      userspace_addr: BigInt(memory),
    });
    expect(count).toBeGreaterThan(32);
    for (let slot = 0; slot < count; slot++) await s.setRegion(vm, at(slot));
    await refused(s.setRegion(vm, at(count)), 'EINVAL');
    await s.calls.munmap(memory, PAGE);
  }, 60_000);

  test('S3 add_private_region: only a guest_memfd of this VM, at a page of it', async (s) => {
    const vm = await s.createVm();
    const other = await s.createVm();
    const memory = await s.anonymous(TWO_MIB);
    const region = {
      slot: 10,
      flags: KVM_MEM.GUEST_MEMFD,
      guest_phys_addr: BASE,
      memory_size: BigInt(TWO_MIB),
      userspace_addr: BigInt(memory),
    };
    const plain = s.calls.memfdCreate('plain', 0);
    for (const fd of [await s.kvm(), vm, plain]) {
      await refused(s.setRegion(vm, { ...region, guest_memfd: fd }), 'EINVAL');
    }
    await s.calls.close(plain);
    await refused(s.setRegion(vm, { ...region, guest_memfd: 0xffff_ffff }), 'EBADF');
    const foreign = await s.createFile(other, TWO_MIB);
    await refused(s.setRegion(vm, { ...region, guest_memfd: foreign }), 'EINVAL');
    await s.setRegion(other, { ...region, guest_memfd: foreign });

    const file = await s.createFile(vm, TWO_MIB);
    const unaligned = Array.from({ length: PAGE - 1 }, (_, i) => BigInt(i + 1));
    for (const offset of unaligned) {
      await refused(s.setRegion(vm, { ...region, guest_memfd: file, guest_memfd_offset: offset }), 'EINVAL');
    }
    await s.setRegion(vm, { ...region, guest_memfd: file });
    await s.calls.munmap(memory, TWO_MIB);
  });

  test('S4 overlapping: neither of the file nor of guest memory', async (s) => {
    const unit = BigInt(TWO_MIB);
    const vm = await s.createVm();
    const memory = await s.anonymous(TWO_MIB * 5);
    const file = await s.createFile(vm, unit * 5n);
    /** A slot of two units at `gpa` that has the file from `offset` on, both in units. */
    const bind = (slot: number, gpa: bigint, offset: bigint): Promise<number> =>
      s.setRegion(vm, {
        slot,
        flags: KVM_MEM.GUEST_MEMFD,
        guest_phys_addr: BASE + gpa * unit,
        memory_size: unit * 2n,
        userspace_addr: BigInt(memory) + offset * unit,
        guest_memfd: file,
        guest_memfd_offset: offset * unit,
      });
    const unbind = (slot: number): Promise<number> => s.setRegion(vm, { slot, flags: 0, memory_size: 0n });
    const overlap = s.quirks.fileOverlapIsInvalid === true ? 'EINVAL' : 'EEXIST';
    await bind(10, 0n, 0n);
    await bind(11, 2n, 2n);
    await unbind(10);
    await refused(bind(10, 0n, 1n), overlap);
    await refused(bind(10, 0n, 3n), overlap);
    await refused(bind(10, 1n, 0n), 'EEXIST');
    await refused(bind(10, 3n, 0n), 'EEXIST');
    await bind(10, 0n, 0n);
    await refused(bind(11, 2n, 2n), 'EINVAL');
    await unbind(11);
    await refused(unbind(11), 'EINVAL');
    await s.calls.munmap(memory, TWO_MIB * 5);
  });

  test('slots: whole pages, addresses that exist, numbers that exist', async (s) => {
    const vm = await s.createVm();
    const memory = await s.anonymous(TWO_MIB);
    const good = {
      slot: 0,
      flags: 0,
      guest_phys_addr: BASE,
      memory_size: BigInt(TWO_MIB),
      userspace_addr: BigInt(memory),
    };
    const misuses: readonly Region[] = [
      { ...good, guest_phys_addr: BASE + 1n },
      { ...good, memory_size: 1n },
      { ...good, memory_size: (1n << 63n) + BigInt(PAGE) },
      { ...good, userspace_addr: BigInt(memory + 1) },
      { ...good, userspace_addr: 0xffff_8000_0000_0000n },
      { ...good, guest_phys_addr: 0xffff_ffff_ffff_f000n, memory_size: BigInt(2 * PAGE) },
      { ...good, slot: 0xfff0 },
      { ...good, slot: 0x7_0000 },
      { ...good, slot: 5, memory_size: 0n },
    ];
    for (const misuse of misuses) await refused(s.setRegion(vm, misuse), 'EINVAL');
    await s.setRegion(vm, good);
    await refused(s.setRegion(vm, { ...good, memory_size: BigInt(PAGE) }), 'EINVAL');
    await refused(s.setRegion(vm, { ...good, userspace_addr: BigInt(memory + PAGE) }), 'EINVAL');
    await s.setRegion(vm, { ...good, guest_phys_addr: BASE * 2n });
    await s.setRegion(vm, { ...good, guest_phys_addr: BASE * 2n, flags: KVM_MEM.LOG_DIRTY_PAGES });
    await s.calls.munmap(memory, TWO_MIB);
  });
});
