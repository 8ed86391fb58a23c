import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { KernelError } from '../../../src/abi/errno.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import { GUEST_MEMFD_FLAG, KVM_MEMORY_ATTRIBUTES2 } from '../../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MAP, PROT } from '../../../src/abi/system-call-flags.ts';
import {
  FILE_ACTIONS,
  FILE_STATES,
  type FileAction,
  type FileState,
} from '../../../src/kvm/guest-memfd/file-technology.ts';
import {
  PKVM_FILE,
  PLAIN_FILE,
  SNP_FILE,
  SW_PROTECTED_FILE,
  TDX_FILE,
} from '../../../src/kvm/guest-memfd/technologies.ts';
import { type Bench, startBench } from './fake-vm.ts';

const TECHNOLOGIES = [PLAIN_FILE, SW_PROTECTED_FILE, TDX_FILE, SNP_FILE, PKVM_FILE];
const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;
const HOLE = FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE;
const PAGES = 8;

/** What user space or the backend has to do for each action: page 0 is shared, page 1 private, as far as there are any. */
async function tryAction(bench: Bench, fd: number, action: FileAction): Promise<string> {
  const { task, vm } = bench;
  const file = [...vm.files.open][0]!;
  const slot = vm.slots.get(0);
  const attributes = (index: number, value: bigint): Promise<number> => {
    const offset = BigInt(index * PAGE_4K);
    const buffer = KVM_MEMORY_ATTRIBUTES2.encode({ offset, size: BigInt(PAGE_4K), attributes: value });
    return task.ioctl(fd, KVM.SET_MEMORY_ATTRIBUTES2, buffer);
  };
  const map = () => task.mmap({ fd, lengthBytes: PAGE_4K, prot: PROT.READ, flags: MAP.SHARED });
  const actions: Record<FileAction, () => Promise<unknown>> = {
    mmap: map,
    'host-fault': async () => task.load(await map(), 1),
    allocate: () => task.fallocate(fd, FALLOC_FL.KEEP_SIZE, 0, PAGE_4K),
    punch: () => task.fallocate(fd, HOLE, 0, PAGE_4K),
    bind: () => vm.bind(1, file, 0x900, 4, 1),
    unbind: async () => slot?.backing?.unbind(slot),
    populate: () => file.populate(slot!, 0x101, 0, async () => undefined),
    'guest-fault': () => file.guestPage(slot!, 0x101, 0),
    'convert-to-private': () => attributes(2, 8n),
    'convert-to-shared': () => attributes(3, 0n),
  };
  try {
    await actions[action]();
    return 'done';
  } catch (error) {
    if (error instanceof KernelError) return error.reason.code;
    return (error as { signal: string }).signal;
  }
}

/** A file in the state, with a slot for its first half from `bound` on; pages 1 and 3 are private. */
async function fileIn(bench: Bench, state: FileState): Promise<number> {
  const { vm, task, create } = bench;
  const isPlain = vm.technology.name === 'plain';
  const { fd, file } = await create(PAGES, MMAP | INIT_SHARED);
  if (!isPlain) {
    for (const index of [1, 3]) {
      const range = { offset: BigInt(index * PAGE_4K), size: BigInt(PAGE_4K) };
      await task.ioctl(
        fd,
        KVM.SET_MEMORY_ATTRIBUTES2,
        KVM_MEMORY_ATTRIBUTES2.encode({ ...range, attributes: 8n }),
      );
    }
  }
  if (state === 'created') return fd;
  await vm.bind(0, file, 0x100, 0, 4);
  vm.files.advance(state);
  return fd;
}

describe('the life of a guest_memfd', () => {
  it.each(TECHNOLOGIES)('does under $name what the table says, in every state', async (technology) => {
    for (const state of FILE_STATES) {
      for (const action of FILE_ACTIONS) {
        const needsSlot = action === 'populate' || action === 'guest-fault';
        const converts = action === 'convert-to-private' || action === 'convert-to-shared';
        if ((needsSlot && state === 'created') || (converts && !technology.supportsInPlace)) continue;
        const bench = await startBench(technology, { inPlaceConversion: true });
        const fd = await fileIn(bench, state);
        const outcome = await tryAction(bench, fd, action);
        const permitted = technology.permits[state].has(action);
        const refusals = action === 'host-fault' ? ['SIGBUS', 'gmem-state-mmap'] : [`gmem-state-${action}`];
        const expected = permitted ? ['done'] : refusals;
        expect(expected, `${action} while ${state}`).toContain(outcome);
        await bench.end();
      }
    }
  });

  it('names state and technology where it refuses', async () => {
    const { vm, create, end } = await startBench(TDX_FILE);
    const { file } = await create(4);
    const slot = await vm.bind(0, file, 0x100, 0, 4);
    await expect(file.guestPage(slot, 0x100, 0)).rejects.toMatchObject({
      errno: 'EFAULT',
      reason: {
        code: 'gmem-state-guest-fault',
        text: 'tdx does not permit guest-fault on a guest_memfd that is bound',
        data: { state: 'bound', technology: 'tdx', action: 'guest-fault' },
      },
    });
    vm.files.advance('populating');
    await file.populate(slot, 0x100, 0, async () => undefined);
    vm.files.advance('sealed');
    await expect(file.populate(slot, 0x101, 0, async () => undefined)).rejects.toMatchObject({
      errno: 'EINVAL',
    });
    await file.guestPage(slot, 0x101, 0);
    await end();
  });

  it('can be read in fdinfo', async () => {
    const { vm, task, create, end } = await startBench(SNP_FILE, { inPlaceConversion: true });
    const { fd, file } = await create(4, MMAP | INIT_SHARED);
    expect(task.fdinfo(fd)).toMatchObject({
      size: '16384',
      'gmem-flags': '0x3',
      'gmem-technology': 'snp',
      'gmem-state': 'created',
      'gmem-permitted': 'mmap host-fault allocate punch bind unbind convert-to-private convert-to-shared',
      'gmem-initially': 'shared',
      'gmem-converted-ranges': '0',
      'gmem-bindings': '0',
    });
    await vm.bind(0, file, 0x100, 0, 4);
    vm.files.advance('live');
    expect(task.fdinfo(fd)).toMatchObject({ 'gmem-state': 'live', 'gmem-bindings': '1', 'gmem-files': '1' });
    await end();
  });

  it('is joined by files that are bound later, and not by files that are not', async () => {
    const { vm, create, end } = await startBench(TDX_FILE);
    const first = await create(1);
    const idle = await create(1);
    await vm.bind(0, first.file, 0x100, 0, 1);
    vm.files.advance('live');
    expect(first.file.inode.life.state).toBe('live');
    expect(idle.file.inode.life.state).toBe('created');
    await vm.bind(1, idle.file, 0x200, 0, 1);
    expect(idle.file.inode.life.state).toBe('live');
    vm.files.advance('populating');
    expect(vm.files.state).toBe('live');
    expect(idle.file.inode.life.state).toBe('live');
    await end();
  });

  it('does not go on to sealed under SEV-SNP while user space maps pages', async () => {
    const { vm, task, create, end } = await startBench(SNP_FILE, { inPlaceConversion: true });
    const { fd, file } = await create(4, MMAP | INIT_SHARED);
    const other = await create(4);
    await vm.bind(0, file, 0x100, 0, 4);
    await vm.bind(1, other.file, 0x200, 0, 4);
    vm.files.advance('populating');
    const at = await task.mmap({ fd, lengthBytes: 4 * PAGE_4K, prot: PROT.READ, flags: MAP.SHARED });
    await task.load(at, 2 * PAGE_4K);
    expect(() => vm.files.advance('sealed')).toThrow(
      expect.objectContaining({
        errno: 'EBUSY',
        reason: expect.objectContaining({
          code: 'gmem-user-mappings',
          data: expect.objectContaining({ pages: 2 }),
        }),
      }),
    );
    expect(vm.files.state).toBe('populating');
    expect(other.file.inode.life.state).toBe('populating');
    await task.munmap(at, 4 * PAGE_4K);
    vm.files.advance('sealed');
    expect(file.inode.life.state).toBe('sealed');
    await end();
  });

  it("lets TDX seal with user mappings: nothing they show is the guest's", async () => {
    const { vm, task, create, end } = await startBench(TDX_FILE, { inPlaceConversion: true });
    const { fd, file } = await create(1, MMAP | INIT_SHARED);
    await vm.bind(0, file, 0x100, 0, 1);
    const at = await task.mmap({ fd, lengthBytes: PAGE_4K, prot: PROT.READ, flags: MAP.SHARED });
    await task.load(at, 1);
    vm.files.advance('live');
    expect(file.inode.life.state).toBe('live');
    await end();
  });
});
