/** KVM_RUN: enters the guest again and again until something has to go to user space. */
import { KernelError } from '../abi/errno.ts';
import { KVM_EXIT, KVM_INTERNAL_ERROR } from '../abi/kvm/exits.ts';
import type { Task } from '../kernel/process/task.ts';
import { resolveFault } from './fault.ts';
import { completeExit, reportExit, type UserExit } from './report-exit.ts';
import type { Vcpu } from './vcpu.ts';
import type { AnsweredExit, VcpuExit } from './vcpu-exit.ts';

/** Bytes of the largest access that one MMIO exit reports. */
const MMIO_BYTES = 8;

type PageFault = Extract<VcpuExit, { readonly kind: 'page-fault' }>;

/**
 * Runs the vCPU on the task's processor. Returns 0 with an exit in the run page. Throws EINTR for signals and immediate_exit,
 * EFAULT and others with a memory fault, EIO for a broken VM, and what the technology says before the vCPU may run.
 * @public
 */
export async function runVcpu(vcpu: Vcpu, task: Task): Promise<number> {
  const { vm, runPage } = vcpu;
  vcpu.cpu = task.cpu;
  let next = completeExit(vcpu);
  if (next === undefined) {
    if (runPage.isImmediateExit(vcpu.lp)) {
      throw new KernelError('EINTR', 'immediate-exit', 'user space has set immediate_exit');
    }
    vm.backend.checkRun(vcpu);
  }
  runPage.report(vcpu.lp, KVM_EXIT.UNKNOWN);
  for (;;) {
    next ??= await enter(vcpu, task);
    const exit = await handle(vcpu, next, task);
    if (exit !== null) return reportExit(vcpu, exit);
    next = undefined;
    if (vm.kernel.schedule !== null) await vm.kernel.schedule('vcpu-run');
  }
}

/** One entry, after what has to happen before it. */
async function enter(vcpu: Vcpu, task: Task): Promise<VcpuExit> {
  const { vm } = vcpu;
  checkSignal(vcpu, task);
  if (vm.bugged !== null) throw vm.bug(vm.bugged);
  vcpu.cpu = task.cpu;
  vcpu.entering();
  try {
    if (vm.kernel.schedule !== null) {
      await vm.kernel.schedule('vcpu-entry');
      if (vcpu.isKicked) return { kind: 'interrupt' };
      // The thread may have been moved.
      vcpu.cpu = task.cpu;
    }
    return await vm.backend.enter(vcpu);
  } finally {
    vcpu.left();
  }
}

/** Does in the kernel what it can; the exit is for user space where one is returned. */
async function handle(vcpu: Vcpu, exit: VcpuExit, task: Task): Promise<UserExit | null> {
  switch (exit.kind) {
    case 'handled':
    case 'interrupt':
      return null;
    case 'page-fault':
      return handleFault(vcpu, exit, task);
    case 'halt':
      if (vcpu.vm.irqchip === 'none') return exit;
      await sleep(vcpu, task);
      return null;
    default:
      return exit;
  }
}

async function handleFault(vcpu: Vcpu, fault: PageFault, task: Task): Promise<UserExit | null> {
  const { gpa, isPrivate, access } = fault;
  const outcome = await resolveFault(vcpu, { gpa, isPrivate, isWrite: access === 'write' }, task);
  if (outcome === 'mapped' || outcome === 'retry') return null;
  return typeof outcome === 'object' ? outcome : emulate(fault);
}

/** An access that no memory answers: user space does it, unless there is no instruction to be seen. */
function emulate({ gpa, access, emulate }: PageFault): UserExit {
  if (emulate === null || access === 'execute') {
    return { kind: 'internal-error', suberror: KVM_INTERNAL_ERROR.EMULATION, data: [] };
  }
  if (emulate.isEventDelivery === true) {
    // Vectoring information, exit reason, exit qualification, the address.
    return {
      kind: 'internal-error',
      suberror: KVM_INTERNAL_ERROR.DELIVERY_EV,
      data: [0n, 0n, 0n, BigInt(gpa)],
    };
  }
  const { isWrite, lengthBytes, bytes, complete } = emulate;
  return mmio(gpa, isWrite, bytes ?? new Uint8Array(lengthBytes), 0, complete);
}

/** An access by parts of 8 bytes, from `done` on. */
function mmio(
  gpa: number,
  isWrite: boolean,
  bytes: Uint8Array,
  done: number,
  complete: AnsweredExit['complete'],
): UserExit {
  const end = Math.min(done + MMIO_BYTES, bytes.length);
  return {
    kind: 'mmio',
    gpa: gpa + done,
    isWrite,
    bytes: bytes.slice(done, end),
    complete: (answer) => {
      if (!isWrite) bytes.set(answer, done);
      return end === bytes.length ? complete(bytes) : mmio(gpa, isWrite, bytes, end, complete);
    },
  };
}

/** Sleeps until the vCPU is woken. Throws EINTR. */
async function sleep(vcpu: Vcpu, task: Task): Promise<void> {
  try {
    await task.interruptible(vcpu.whenWoken());
  } catch (error) {
    vcpu.runPage.report(vcpu.lp, KVM_EXIT.INTR);
    throw error;
  }
}

function checkSignal(vcpu: Vcpu, task: Task): void {
  if (!task.signalPending) return;
  vcpu.runPage.report(vcpu.lp, KVM_EXIT.INTR);
  task.checkSignal();
}
