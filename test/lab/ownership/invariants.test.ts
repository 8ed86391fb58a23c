/** Each invariant of ownership, broken on purpose: it is named, and what it names is what was done. */
import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../../src/abi/address.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import { startProcess } from '../../../src/kernel/process/process.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import type { SnpBackend } from '../../../src/kvm/backends/snp/snp-backend.ts';
import type { SoftwareBackend } from '../../../src/kvm/backends/software/software-backend.ts';
import type { TdxBackend } from '../../../src/kvm/backends/tdx/tdx-backend.ts';
import type { GuestMemfdFile } from '../../../src/kvm/guest-memfd/file.ts';
import type { Vm } from '../../../src/kvm/vm.ts';
import type { VmFile } from '../../../src/kvm/vm-file.ts';
import type { GuestFlow } from '../../../src/lab/guest/flow.ts';
import { setGuestScript } from '../../../src/lab/kvm-host.ts';
import { mappingsOf } from '../../../src/lab/ownership/guest-mappings.ts';
import { OwnershipError, OwnershipWatch } from '../../../src/lab/ownership/ownership-watch.ts';
import type { GuestVm } from '../../../src/vmm/vm/guest-vm.ts';
import { SECRET } from '../interleavings/guest-script.ts';
import { BASE, buildVm, type RaceHost, raceHost, SUBJECTS, type Subject } from '../interleavings/subjects.ts';

const GFN = BASE / PAGE_4K;

/** A VM whose guest has written a secret to its first private page and a word to what is shared, and been left. */
interface Scene {
  readonly host: RaceHost;
  readonly task: Task;
  readonly vm: GuestVm;
  readonly kernelVm: Vm;
  readonly watch: OwnershipWatch;
  readonly inode: GuestMemfdFile['inode'];
  /** Address of user memory that user space has touched, and its page. */
  readonly address: number;
  readonly userPfn: number;
  /** Page of the guest's first frame. */
  readonly pfn: number;
}

async function scene(subject: Subject): Promise<Scene> {
  const host = await raceHost(subject);
  const task = startProcess(host.kernel);
  const vm = await buildVm(task, subject, 1);
  const kernelVm = (task.process.files.get(vm.fd).object as VmFile).vm;
  const slot = vm.slots.find(({ start }) => start === BASE)!;
  const [vcpu] = vm.vcpus;
  setGuestScript(host.guests, task, vcpu!.fd, function* (cpu): GuestFlow {
    const dialect = subject.dialect(cpu, () => undefined);
    yield* dialect.start();
    yield* dialect.write(BASE, SECRET, subject.backing === 'none' ? 'shared' : 'private');
    task.signal();
    yield* cpu.interrupt();
    yield* cpu.interrupt();
  });
  await expect(task.ioctl(vcpu!.fd, KVM.RUN)).rejects.toMatchObject({ errno: 'EINTR' });
  const address = slot.userAddress + PAGE_4K;
  if (subject.backing === 'split' || subject.backing === 'none') await task.store(address, Uint8Array.of(1));
  const inode = (slot.fd === null ? null : (task.process.files.get(slot.fd).object as GuestMemfdFile).inode)!;
  const pfn = mappingsOf(kernelVm).find(({ gfn }) => gfn === GFN)!.pfn;
  const userPfn = task.process.memory.pfnAt(address / PAGE_4K)!;
  const watch = new OwnershipWatch({
    kernel: host.kernel,
    vms: [kernelVm],
    processes: [task.process],
    secret: SECRET,
  });
  watch.check();
  return { host, task, vm, kernelVm, watch, inode, address, userPfn, pfn };
}

/** Names of the invariants that do not hold. */
function broken({ watch }: Scene): readonly string[] {
  try {
    watch.check();
    return [];
  } catch (error) {
    if (error instanceof OwnershipError) return error.broken;
    throw error;
  }
}

const stageOf = ({ kernelVm }: Scene) => (kernelVm.backend as SoftwareBackend).stage;
const { swProtected, tdx, snp, pkvm } = SUBJECTS;

const FAULTS: readonly (readonly [name: string, Subject, (scene: Scene) => unknown])[] = [
  [
    'userSpaceSeesNoSecret',
    swProtected,
    ({ host, userPfn }) => host.machine.memory.write(userPfn * PAGE_4K + 128, SECRET, 0),
  ],
  [
    'kernelReadsNoSecret',
    tdx,
    ({ host, pfn }) => {
      const line = new Uint8Array(64);
      line.set(SECRET);
      host.machine.memory.write(pfn * PAGE_4K, line, 0, 'direct');
    },
  ],
  [
    'devicesPinNoPrivatePage',
    swProtected,
    ({ host: { kernel }, pfn }) => {
      kernel.pageRefs.adopt(pfn);
      kernel.pageRefs.pin(pfn);
    },
  ],
  [
    'privatePageHasOneOwner',
    swProtected,
    (all) => stageOf(all).set({ gfn: GFN + 1, pfn: all.pfn, level: 0, writable: true, isPrivate: true }),
  ],
  [
    'userSpaceMapsNoPrivatePage',
    swProtected,
    (all) => stageOf(all).set({ gfn: GFN, pfn: all.userPfn, level: 0, writable: true, isPrivate: true }),
  ],
  ['reachedPagesAreInUse', swProtected, ({ inode }) => inode.truncate(0, 1)],
  [
    'freePagesAreTheHosts',
    snp,
    async ({ inode, kernelVm }) => {
      const { reclaim } = inode.technology;
      inode.technology.reclaim = async () => undefined;
      await kernelVm.backend.zap(GFN, GFN + 1, 'private');
      await inode.truncate(0, 1);
      inode.technology.reclaim = reclaim!;
    },
  ],
  [
    'mappingsLieInSlots',
    swProtected,
    (all) => stageOf(all).set({ gfn: 1, pfn: all.userPfn, level: 0, writable: true, isPrivate: false }),
  ],
  ['mappingsHaveTheAttribute', swProtected, ({ kernelVm }) => kernelVm.attributes.set(GFN, GFN + 1, 0n)],
  [
    'mappingsLeadToTheirBacking',
    swProtected,
    (all) => stageOf(all).set({ gfn: GFN, pfn: all.pfn + 1, level: 0, writable: true, isPrivate: true }),
  ],
  ['tlbsFollowTables', swProtected, (all) => stageOf(all).remove(GFN, GFN + 1, () => true)],
  [
    'kvmKnowsTheTables',
    tdx,
    ({ kernelVm }) => {
      const { mirror } = (kernelVm.backend as TdxBackend).ept;
      mirror.remove(mirror.table(GFN / 512)!, 0);
    },
  ],
  [
    'rmpAgreesWithNestedTables',
    snp,
    ({ kernelVm, pfn }) => {
      const { nested } = (kernelVm.backend as SnpBackend).guest;
      nested.map(GFN, false, { pfn, writable: true, isPrivate: false });
    },
  ],
  ['referencesCoverMappings', swProtected, ({ host, userPfn }) => host.kernel.pageRefs.put(userPfn)],
  ['noVmBreaks', tdx, ({ kernelVm }) => kernelVm.bug('on purpose')],
];

describe('invariants of ownership', () => {
  it.each(FAULTS)('%s is named when it is broken', async (name, subject, fault) => {
    const all = await scene(subject);
    expect(broken(all)).toEqual([]);
    await fault(all);
    expect(broken(all)).toContain(name);
  });

  it.each([swProtected, tdx, snp, pkvm])(
    'hold for $name, before its guest is gone and after',
    async (subject) => {
      const all = await scene(subject);
      expect(broken(all)).toEqual([]);
      await all.task.exit();
      expect(broken(all)).toEqual([]);
    },
  );
});
