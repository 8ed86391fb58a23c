/** The thread of a vCPU: it runs the guest and does what its exits ask for. */
import { PAGE_4K } from '../../../src/abi/address.ts';
import { ERRNO, KernelError } from '../../../src/abi/errno.ts';
import {
  KVM_EXIT,
  KVM_MAP_GPA_RANGE,
  KVM_MEMORY_ERROR_FLAG_PRIVATE,
  KVM_MEMORY_EXIT_FLAG_PRIVATE,
  KVM_RUN_EXIT,
} from '../../../src/abi/kvm/exits.ts';
import { KVM } from '../../../src/abi/kvm/ioctl.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import { exitName, readExit, writeUnion } from '../../../src/vmm/vm/guest-vcpu.ts';
import { convert, discard } from './host-steps.ts';
import { gpaOf, type Race } from './race.ts';

/** Memory faults in a row, each answered, after which the thread gives its guest up. */
const PATIENCE = 24;

/** Until the script is done, or the guest cannot go on. Throws what KVM_RUN must not throw. */
export async function serveVcpu(race: Race, index: number): Promise<void> {
  const task = race.threads[index]!;
  const vcpu = race.vm.vcpus[index]!;
  let last = '';
  for (let faults = 0; faults < PATIENCE; ) {
    const end = race.finished.get(index);
    if (end === null) return;
    if (end !== undefined) throw end;
    let refusal: KernelError | null = null;
    try {
      await task.ioctl(vcpu.fd, KVM.RUN);
    } catch (error) {
      if (!(error instanceof KernelError) || !BEARABLE.has(error.errno)) throw error;
      refusal = error;
    }
    if (refusal?.errno === 'EINTR') continue;
    const { reason, union } = await readExit({ calls: task }, vcpu);
    last = `${exitName(reason)} ${refusal?.reason.code ?? ''}`;
    if (reason === KVM_EXIT.HYPERCALL) {
      faults = 0;
      KVM_RUN_EXIT.HYPERCALL.patch(union, { ret: await answer(race, task, union) });
      await writeUnion({ calls: task }, vcpu, union);
    } else if (reason === KVM_EXIT.MEMORY_FAULT || reason === KVM_EXIT.MEMORY_ERROR) {
      faults++;
      await convertImplicitly(race, task, reason, union);
    } else if (reason === KVM_EXIT.MMIO) {
      // No slot was there; nothing answers.
      faults++;
    } else if (refusal !== null && reason === KVM_EXIT.UNKNOWN) {
      // No exit says what to do about it: the page was taken from the guest for good.
      break;
    } else if (reason !== KVM_EXIT.INTR) {
      throw new Error(
        `vCPU ${index} exits with ${exitName(reason)}${refusal === null ? '' : `: ${refusal.message}`}`,
      );
    }
  }
  race.gaveUp.push(`vCPU ${index}: ${last}`);
}

const BEARABLE: ReadonlySet<string> = new Set(['EINTR', 'EFAULT', 'ENOMEM', 'EHWPOISON', 'EAGAIN']);

/** The guest asked: all of it is converted, or none and the guest is told. */
async function answer(race: Race, task: Task, union: Uint8Array): Promise<bigint> {
  const [gpa = 0n, pages = 0n, attributes = 0n] = KVM_RUN_EXIT.HYPERCALL.decode(union).args;
  const toPrivate = (attributes & KVM_MAP_GPA_RANGE.ENC_STAT) !== 0n;
  const page = (Number(gpa) - gpaOf(0)) / PAGE_4K;
  if (page < 0 || page + Number(pages) > race.subject.pages) return toPrivate ? BigInt(ERRNO.EINVAL) : 0n;
  try {
    await convert(race, task, page, Number(pages), toPrivate);
  } catch (error) {
    if (error instanceof KernelError) return BigInt(error.errno === 'EAGAIN' ? ERRNO.EAGAIN : ERRNO.EINVAL);
    throw error;
  }
  // It is converted, whether or not the other memory can be given back: the file may be closed.
  const discarding = race.program.discards
    ? discard(race, task, page, Number(pages), toPrivate)
    : Promise.resolve();
  await discarding.catch((error: unknown) => {
    if (!(error instanceof KernelError)) throw error;
  });
  return 0n;
}

/** The guest used memory as what it is not; where it says so, user space makes it that. */
async function convertImplicitly(race: Race, task: Task, reason: number, union: Uint8Array): Promise<void> {
  const { gpa, flags } =
    reason === KVM_EXIT.MEMORY_FAULT
      ? KVM_RUN_EXIT.MEMORY_FAULT.decode(union)
      : KVM_RUN_EXIT.MEMORY_ERROR.decode(union);
  const bit =
    reason === KVM_EXIT.MEMORY_FAULT ? KVM_MEMORY_EXIT_FLAG_PRIVATE : BigInt(KVM_MEMORY_ERROR_FLAG_PRIVATE);
  const toPrivate = (BigInt(flags) & bit) !== 0n;
  const page = (Number(gpa) - gpaOf(0)) / PAGE_4K;
  if (!race.subject.tellsKinds || page < 0 || page >= race.subject.pages) return;
  try {
    await convert(race, task, page, 1, toPrivate);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
  }
}
