/** The loop around KVM_RUN: user space answers exits until the guest ends or can go on no more. */
import { type ErrnoName, KernelError } from '../../abi/errno.ts';
import { KVM_EXIT } from '../../abi/kvm/exits.ts';
import { KVM } from '../../abi/kvm/ioctl.ts';
import { doing } from './doing.ts';
import { EXIT_HANDLERS } from './exit-handlers.ts';
import { exitName, type GuestVcpu, readExit } from './guest-vcpu.ts';
import type { GuestVm } from './guest-vm.ts';
import { callsOf, type RunOptions, type VcpuEnd, type VcpuRun } from './vcpu-run.ts';

/** Errors of KVM_RUN that come with a memory fault in the run page. */
const FAULT_ERRNOS: ReadonlySet<ErrnoName> = new Set(['EFAULT', 'EHWPOISON', 'ENOMEM']);

/** Runs a vCPU until it ends. Throws KernelError for a KVM_RUN that fails otherwise than by a memory fault. @public */
export async function runVcpu(vm: GuestVm, vcpu: GuestVcpu, options: RunOptions = {}): Promise<VcpuEnd> {
  const run: VcpuRun = { vm, vcpu, options, errno: null, lastFault: null };
  for (;;) {
    const interrupted = await enter(run);
    if (interrupted) return { kind: 'interrupted', text: 'a signal interrupted KVM_RUN' };
    const { reason, union } = await readExit(callsOf(run), vcpu);
    options.onExit?.(exitName(reason), run.errno);
    const handler = EXIT_HANDLERS.get(reason);
    if (handler === undefined) {
      return {
        kind: 'unknown-exit',
        text: `KVM_RUN came back with ${exitName(reason)}, which nobody answers`,
      };
    }
    const end = await handler(run, union);
    if (end !== null) return end;
    if (reason !== KVM_EXIT.MEMORY_FAULT) run.lastFault = null;
  }
}

/** One KVM_RUN; true when a signal ended it. */
async function enter(run: VcpuRun): Promise<boolean> {
  const { vcpu } = run;
  run.errno = null;
  try {
    await callsOf(run).calls.ioctl(vcpu.fd, KVM.RUN);
    return false;
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    if (error.errno === 'EINTR') return true;
    const { reason } = await readExit(callsOf(run), vcpu);
    run.errno = error.errno;
    if (FAULT_ERRNOS.has(error.errno) && reason === KVM_EXIT.MEMORY_FAULT) return false;
    return doing(`running vCPU ${vcpu.index}`, () => Promise.reject(error));
  }
}
