/** What threads of user space do to a VM while its guest runs. */
import { PAGE_4K } from '../../../src/abi/address.ts';
import { DMA, DMA_DEVICE_PATH, DMA_PIN, DMA_TRANSFER, DMA_UNPIN } from '../../../src/abi/dma-device.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import {
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_MEMORY_ATTRIBUTES,
  KVM_MEMORY_ATTRIBUTES2,
  KVM_PRE_FAULT_MEMORY,
} from '../../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MADV, MAP, PROT } from '../../../src/abi/system-call-flags.ts';
import { onlineCpus } from '../../../src/kernel/cpu.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import { mappingsOf } from '../../../src/lab/ownership/guest-mappings.ts';
import { CpuException } from '../../../src/machine/exceptions.ts';
import { mapAnonymous } from '../../../src/vmm/vm/user-memory.ts';
import { CELL_BYTES, cell, lineOf, SCRATCH, SECRET } from './guest-script.ts';
import type { HostStep } from './program.ts';
import { gpaOf, type Race } from './race.ts';
import { type Loss, setSlot } from './subjects.ts';

const HOLE = FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE;
/** How the machine may answer stores of the kernel to memory of guests. */
const REFUSES_STORES: ReadonlySet<string> = new Set(['snp', 'pkvm']);

/** Throws KernelError and UserFault where the step cannot be done. */
export function runHostStep(race: Race, task: Task, index: number, step: HostStep): Promise<void> {
  switch (step.do) {
    case 'load':
      return load(race, task, index, step.page);
    case 'store':
      return store(race, task, index, step.page);
    case 'dma':
      return transfer(race, task, step.page);
    case 'dontneed':
      return losing(race, 'dontneed', [step.page], () =>
        task.madvise(userAddress(race, step.page), PAGE_4K, MADV.DONTNEED),
      );
    case 'poke':
      return poke(race, step.page);
    case 'convert': {
      const { page, pages } = hostile(step, race.subject.tellsKinds);
      return convert(race, task, page, pages, step.toPrivate);
    }
    case 'punch': {
      const { page, pages } = hostile(
        step,
        race.subject.backend !== 'pkvm' && race.subject.backing !== 'memfile',
      );
      return punch(race, task, page, pages);
    }
    case 'allocate':
      return allocate(race, task, step.page, step.pages);
    case 'prefault':
      return preFault(race, task, step);
    case 'slot':
      return replaceSlot(race, task);
    case 'remap':
      return remap(race, task);
    case 'close':
      return closeFile(race, task);
    case 'signal':
      race.threads[step.vcpu % race.threads.length]!.signal();
      return Promise.resolve();
    case 'move':
      return move(race, step);
    case 'hotplug':
      return hotplug(race, step.cpu);
  }
}

/** Where the guest could not know, only the scratch page is taken from it. */
function hostile(
  { page, pages }: { readonly page: number; readonly pages: number },
  isAnyPage: boolean,
): { readonly page: number; readonly pages: number } {
  return isAnyPage ? { page, pages } : { page: SCRATCH, pages: 1 };
}

function range(page: number, pages: number): number[] {
  return Array.from({ length: pages }, (_, i) => page + i);
}

function losing(
  { ledger, subject }: Race,
  what: Loss,
  pages: readonly number[],
  work: () => Promise<unknown>,
): Promise<void> {
  return ledger.losing(pages, subject.loses[what], work);
}

export function userAddress({ slot }: Race, page: number): number {
  return slot.userAddress + page * PAGE_4K;
}

async function load(race: Race, task: Task, index: number, page: number): Promise<void> {
  const bytes = await task.load(userAddress(race, page), 1024);
  expectNoSecret(bytes, `user space loads page ${page}`);
  const at = lineOf(index, true);
  race.ledger.read(page, 'shared', `host ${index}`, bytes.subarray(at, at + CELL_BYTES), false);
}

async function store(race: Race, task: Task, index: number, page: number): Promise<void> {
  const { ledger } = race;
  const bytes = cell(false, index, ++race.counter);
  const mark = ledger.mark(page, 'shared');
  ledger.forget(page, 'shared', `host ${index}`);
  await task.store(userAddress(race, page) + lineOf(index, true), bytes);
  ledger.wrote(page, 'shared', `host ${index}`, bytes, mark);
}

/** Pins a page, reads and writes it by DMA, and lets go. */
async function transfer(race: Race, task: Task, page: number): Promise<void> {
  const { kernel } = race.host;
  const device = await task.open(DMA_DEVICE_PATH);
  try {
    const buffer = await mapAnonymous(task, PAGE_4K);
    try {
      const pin = DMA_PIN.encode({ address: BigInt(userAddress(race, page)), length: BigInt(PAGE_4K) });
      await task.ioctl(device, DMA.PIN, pin);
      const { handle } = DMA_PIN.decode(pin);
      const request = { handle, buffer: BigInt(buffer), offset: 0n, length: 1024n };
      await kernel.schedule?.('pinned');
      await task.ioctl(device, DMA.READ, DMA_TRANSFER.encode(request));
      expectNoSecret(await task.load(buffer, 1024), `a device reads page ${page}`);
      const written = { ...request, offset: 3072n, length: 16n };
      await task.ioctl(device, DMA.WRITE, DMA_TRANSFER.encode(written));
      await kernel.schedule?.('pinned');
      await task.ioctl(device, DMA.UNPIN, DMA_UNPIN.encode({ handle }));
    } finally {
      await task.munmap(buffer, PAGE_4K);
    }
  } finally {
    await task.close(device);
  }
}

/** The kernel stores to a guest's private page, which the machine refuses. */
async function poke({ host, subject, kernelVm }: Race, page: number): Promise<void> {
  if (!REFUSES_STORES.has(subject.backend)) return;
  const gfn = gpaOf(page) / PAGE_4K;
  const mapping = mappingsOf(kernelVm).find((each) => each.isPrivate && each.gfn === gfn && each.pages === 1);
  if (mapping === undefined) return;
  try {
    host.machine.lps[0]!.store(mapping.pfn * PAGE_4K, Uint8Array.of(1));
  } catch (error) {
    if (error instanceof CpuException) return;
    throw error;
  }
  throw new Error(`the kernel overwrote private page ${page}`);
}

/** Makes pages private or shared, as user space does when it is asked to, and without being asked. */
export async function convert(
  race: Race,
  task: Task,
  page: number,
  pages: number,
  toPrivate: boolean,
): Promise<void> {
  const { subject, slot, vm } = race;
  if (subject.backing === 'none') return;
  const offset = page * PAGE_4K;
  const size = pages * PAGE_4K;
  const attributes = toPrivate ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n;
  await losing(race, toPrivate ? 'to-private' : 'to-shared', range(page, pages), async () => {
    if (subject.backing === 'memfile') return task.fallocate(slot.fd!, toPrivate ? 0 : HOLE, offset, size);
    if (subject.backing === 'in-place') {
      const request = { offset: BigInt(offset), size: BigInt(size), attributes };
      return task.ioctl(slot.fd!, KVM.SET_MEMORY_ATTRIBUTES2, KVM_MEMORY_ATTRIBUTES2.encode(request));
    }
    const request = { address: BigInt(gpaOf(page)), size: BigInt(size), attributes };
    return task.ioctl(vm.fd, KVM.SET_MEMORY_ATTRIBUTES, KVM_MEMORY_ATTRIBUTES.encode(request));
  });
}

/** What a VMM does after a conversion: the memory of the other kind goes. */
export async function discard(
  race: Race,
  task: Task,
  page: number,
  pages: number,
  isPrivateNow: boolean,
): Promise<void> {
  if (race.subject.backing !== 'split') return;
  if (!isPrivateNow) return punch(race, task, page, pages);
  await losing(race, 'dontneed', range(page, pages), () =>
    task.madvise(userAddress(race, page), pages * PAGE_4K, MADV.DONTNEED),
  );
}

async function punch(race: Race, task: Task, page: number, pages: number): Promise<void> {
  const { fd } = race.slot;
  if (fd === null) return;
  await losing(race, 'punch', range(page, pages), () =>
    task.fallocate(fd, HOLE, page * PAGE_4K, pages * PAGE_4K),
  );
}

async function allocate({ slot, subject }: Race, task: Task, page: number, pages: number): Promise<void> {
  if (slot.fd === null || subject.backing === 'memfile') return;
  await task.fallocate(slot.fd, FALLOC_FL.KEEP_SIZE, page * PAGE_4K, pages * PAGE_4K);
}

async function preFault(
  { vm }: Race,
  task: Task,
  { vcpu, page, pages }: Extract<HostStep, { readonly do: 'prefault' }>,
): Promise<void> {
  const request = KVM_PRE_FAULT_MEMORY.encode({ gpa: BigInt(gpaOf(page)), size: BigInt(pages * PAGE_4K) });
  await task.ioctl(vm.vcpus[vcpu % vm.vcpus.length]!.fd, KVM.PRE_FAULT_MEMORY, request);
}

/** Deletes the slot and makes it again. */
async function replaceSlot(race: Race, task: Task): Promise<void> {
  const { vm, slot, subject, host } = race;
  // Where the file alone knows what is private, a guest without its slot would tell devices its secrets.
  if (subject.backend === 'sw-protected' && subject.backing !== 'split') return;
  await losing(race, 'slot', range(0, subject.pages), async () => {
    await setSlot(task, vm.fd, slot, subject, 0);
    await host.kernel.schedule?.('no-slot');
    await setSlot(task, vm.fd, slot, subject);
  });
}

/** Maps something else over the shared half, which is as good as throwing its contents away. */
async function remap(race: Race, task: Task): Promise<void> {
  const { subject, slot } = race;
  const lengthBytes = subject.pages * PAGE_4K;
  const prot = PROT.READ | PROT.WRITE;
  const place = { address: slot.userAddress, lengthBytes, prot };
  const work = () =>
    subject.backing === 'in-place'
      ? task.mmap({ ...place, flags: MAP.SHARED | MAP.FIXED, fd: slot.fd! })
      : task.mmap({ ...place, flags: MAP.PRIVATE | MAP.ANONYMOUS | MAP.FIXED });
  await losing(race, 'dontneed', range(0, subject.pages), work);
}

/** The last descriptor of the file goes; a mapping keeps the file. */
async function closeFile(race: Race, task: Task): Promise<void> {
  const { slot, subject } = race;
  if (slot.fd === null) return;
  const pages = range(0, subject.pages);
  await race.ledger.losing(pages, ['private', 'shared'], () => task.close(slot.fd!));
}

async function move(
  { threads, host }: Race,
  { vcpu, cpu }: Extract<HostStep, { readonly do: 'move' }>,
): Promise<void> {
  if (host.kernel.cpus[cpu]!.online) threads[vcpu % threads.length]!.cpu = cpu;
}

/** A processor goes, after the threads that ran on it, and comes back. */
async function hotplug({ host, task }: Race, cpu: number): Promise<void> {
  const { kernel } = host;
  if (cpu === 0) return;
  const [other] = onlineCpus(kernel.cpus);
  for (const thread of task.process.tasks) if (thread.cpu === cpu) thread.cpu = other!.index;
  await kernel.cpuOffline(cpu);
  await kernel.schedule?.('cpu-is-off');
  await kernel.cpuOnline(cpu);
}

function expectNoSecret(bytes: Uint8Array, who: string): void {
  if (Buffer.from(bytes).includes(Buffer.from(SECRET))) throw new Error(`${who} and finds a secret`);
}
