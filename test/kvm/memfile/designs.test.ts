/** One guest under the three designs of private memory that Linux has known: what user space does differs, and what is kept. */
import { describe, expect, it } from 'vitest';
import { KVM_CAP } from '../../../src/abi/kvm/capabilities.ts';
import { KVM_RUN_EXIT } from '../../../src/abi/kvm/exits.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import {
  GUEST_MEMFD_FLAG,
  KVM_MEM,
  KVM_MEM_PRIVATE,
  KVM_MEMORY_ATTRIBUTES2,
  KVM_USERSPACE_MEMORY_REGION,
  KVM_USERSPACE_MEMORY_REGION_EXT,
} from '../../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MAP, MFD } from '../../../src/abi/system-call-flags.ts';
import type { LoadOptions } from '../../../src/kvm/load-kvm.ts';
import { KvmSession, PAGE, READ_WRITE } from '../kvm-session.ts';

const GPA = 0x10_0000;
const PAGES = 4;
const BYTES = PAGES * PAGE;
const SW_PROTECTED = 1;
const ENCRYPTED = 0x10n;
const HOLE = FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE;

/** What user space sets up and how it answers a guest that wants to convert. */
interface Setup {
  /** Address at which user space sees what is shared. */
  readonly shared: number;
  convert(offset: number, isPrivate: boolean): Promise<unknown>;
  /** Pages that the files of the guest take up. */
  blocks(): number;
}

interface Design {
  readonly name: string;
  readonly options: LoadOptions;
  /** A page that becomes private keeps its bytes, as does one that becomes shared. */
  readonly keepsBytes: boolean;
  setUp(session: KvmSession, vm: number): Promise<Setup>;
}

const slot = { slot: 0, guest_phys_addr: BigInt(GPA), memory_size: BigInt(BYTES) };

const DESIGNS: readonly Design[] = [
  {
    name: 'memfd with notifiers (2022)',
    options: { memfile: true },
    keepsBytes: false,
    setUp: async (session, vm) => {
      const { task } = session;
      const shared = await session.anonymous(PAGES);
      const fd = task.memfdCreate('private', MFD.INACCESSIBLE);
      await task.ftruncate(fd, BYTES);
      const region = KVM_USERSPACE_MEMORY_REGION.decode(
        KVM_USERSPACE_MEMORY_REGION.encode({
          ...slot,
          userspace_addr: BigInt(shared),
          flags: KVM_MEM_PRIVATE,
        }),
      );
      await task.ioctl(
        vm,
        KVM.SET_USER_MEMORY_REGION,
        KVM_USERSPACE_MEMORY_REGION_EXT.encode({ region, private_offset: 0n, private_fd: fd }),
      );
      return {
        shared,
        convert: (offset, isPrivate) => task.fallocate(fd, isPrivate ? 0 : HOLE, offset, PAGE),
        blocks: () => task.fstat(fd).blocks / 8,
      };
    },
  },
  {
    name: 'guest_memfd with attributes of the VM (6.8)',
    options: {},
    keepsBytes: false,
    setUp: async (session, vm) => {
      const { task } = session;
      const shared = await session.anonymous(PAGES);
      const fd = await session.createFile(vm, PAGES);
      const flags = KVM_MEM.GUEST_MEMFD;
      await session.setRegion(vm, { ...slot, flags, userspace_addr: BigInt(shared), guest_memfd: fd });
      return {
        shared,
        convert: async (offset, isPrivate) => {
          await session.setAttributes(vm, GPA + offset, PAGE, isPrivate ? 8n : 0n);
          if (!isPrivate) await task.fallocate(fd, HOLE, offset, PAGE);
        },
        blocks: () => task.fstat(fd).blocks / 8,
      };
    },
  },
  {
    name: 'guest_memfd converted in place (2026)',
    options: { inPlaceConversion: true },
    keepsBytes: true,
    setUp: async (session, vm) => {
      const { task } = session;
      const fd = await session.createFile(vm, PAGES, GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED);
      const shared = await task.mmap({ fd, lengthBytes: BYTES, prot: READ_WRITE, flags: MAP.SHARED });
      const flags = KVM_MEM.GUEST_MEMFD;
      await session.setRegion(vm, { ...slot, flags, userspace_addr: BigInt(shared), guest_memfd: fd });
      return {
        shared,
        convert: (offset, isPrivate) => {
          const range = { offset: BigInt(offset), size: BigInt(PAGE), attributes: isPrivate ? 8n : 0n };
          return task.ioctl(fd, KVM.SET_MEMORY_ATTRIBUTES2, KVM_MEMORY_ATTRIBUTES2.encode(range));
        },
        blocks: () => task.fstat(fd).blocks / 8,
      };
    },
  },
];

describe.each(DESIGNS)('private memory by $name', ({ options, keepsBytes, setUp }) => {
  it('is converted when the guest asks, hidden from user space, and given back', async () => {
    const session = await KvmSession.start(options);
    const { task } = session;
    const vm = await session.createVm(SW_PROTECTED);
    await session.enableCap(vm, KVM_CAP.EXIT_HYPERCALL, 1n << 12n);
    const { shared, convert, blocks } = await setUp(session, vm);
    await task.store(shared, new Uint8Array(BYTES).fill(1));
    const seen: number[] = [];
    const runner = await session.runner(vm, function* (cpu) {
      const look = function* () {
        seen.push((yield* cpu.read(GPA + PAGE, 1))[0]!);
      };
      yield* look();
      yield* cpu.mapGpaRange(GPA + PAGE, 1, true);
      yield* look();
      yield* cpu.write(GPA + PAGE, Uint8Array.of(7));
      yield* look();
      yield* cpu.write(GPA, Uint8Array.of(2));
      yield* cpu.mapGpaRange(GPA + PAGE, 1, false);
      yield* look();
      yield* cpu.write(GPA + PAGE, Uint8Array.of(3));
    });
    const exits: string[] = [];
    const visible: (number | string)[] = [];
    for (let exit = await runner.run(); exit !== 'HLT'; exit = await runner.run()) {
      exits.push(exit);
      const { args } = await runner.exit(KVM_RUN_EXIT.HYPERCALL);
      await convert(Number(args[0]) - GPA, ((args[2] ?? 0n) & ENCRYPTED) !== 0n);
      visible.push(
        await task.load(shared + PAGE, 1).then(
          (bytes) => bytes[0]!,
          (error) => error.signal,
        ),
      );
    }
    expect(exits).toEqual(['HYPERCALL', 'HYPERCALL']);
    expect(seen).toEqual(keepsBytes ? [1, 1, 7, 7] : [1, 0, 7, 1]);
    // User space sees its own page beside the private one, or with a single page nothing.
    expect(visible).toEqual(keepsBytes ? ['SIGBUS', 7] : [1, 1]);
    expect(await task.load(shared + PAGE, 1)).toEqual(Uint8Array.of(3));
    expect(await task.load(shared, 2)).toEqual(Uint8Array.of(2, 1));
    expect(blocks()).toBe(keepsBytes ? PAGES : 0);
    await task.exit();
    expect(session.leaks()).toMatchObject({ pages: 0 });
  });
});
