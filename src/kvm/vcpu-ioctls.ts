/** The ioctls of a vCPU by request. Its mutex is held. */
import { KernelError } from '../abi/errno.ts';
import { KVM } from '../abi/kvm/ioctl.ts';
import { KVM_FPU, KVM_MP_STATE, KVM_REGS, KVM_SREGS } from '../abi/kvm/structs.ts';
import { REGISTER_NAMES } from '../abi/registers.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import { expectNone } from './argument.ts';
import { getCpuid, readCpuid } from './guest-cpuid.ts';
import { preFaultMemory } from './pre-fault.ts';
import { runVcpu } from './run-loop.ts';
import type { Vcpu } from './vcpu.ts';

/** @internal */
export type VcpuIoctl = (vcpu: Vcpu, arg: UserArg, task: Task) => Promise<number>;

/** @internal */
export const VCPU_IOCTLS: ReadonlyMap<number, VcpuIoctl> = new Map<number, VcpuIoctl>([
  [KVM.RUN, run],
  [KVM.PRE_FAULT_MEMORY, preFaultMemory],
  [KVM.GET_REGS, open(getRegisters)],
  [KVM.SET_REGS, open(setRegisters)],
  [KVM.GET_SREGS, open(getKept(KVM.SET_SREGS, KVM_SREGS.bytes))],
  [KVM.SET_SREGS, open(setKept(KVM.SET_SREGS, KVM_SREGS.bytes))],
  [KVM.GET_FPU, open(getKept(KVM.SET_FPU, KVM_FPU.bytes))],
  [KVM.SET_FPU, open(setKept(KVM.SET_FPU, KVM_FPU.bytes))],
  [KVM.GET_MP_STATE, getKept(KVM.SET_MP_STATE, KVM_MP_STATE.bytes)],
  [KVM.SET_MP_STATE, setKept(KVM.SET_MP_STATE, KVM_MP_STATE.bytes)],
  [
    KVM.SET_CPUID2,
    async (vcpu, arg, task) => {
      vcpu.cpuid = await readCpuid(arg, task);
      return 0;
    },
  ],
  [KVM.GET_CPUID2, (vcpu, arg, task) => getCpuid(vcpu.cpuid, arg, task)],
]);

function run(vcpu: Vcpu, arg: UserArg, task: Task): Promise<number> {
  expectNone(arg);
  return runVcpu(vcpu, task);
}

/** An ioctl on state that the host sees. Throws EINVAL where the technology protects it. */
function open(handler: VcpuIoctl): VcpuIoctl {
  return async (vcpu, arg, task) => {
    const { backend } = vcpu.vm;
    if (!(backend.protectsRegisters?.(vcpu) ?? backend.hasProtectedState)) return handler(vcpu, arg, task);
    throw new KernelError('EINVAL', 'protected-state', 'the host does not see the registers of such a vCPU');
  };
}

async function getRegisters({ regs, rip, rflags }: Vcpu, arg: UserArg, task: Task): Promise<number> {
  const values = Object.fromEntries(REGISTER_NAMES.map((name, i) => [name, regs.q[i]!]));
  await task.copyOut(arg, KVM_REGS.encode({ ...values, rip, rflags }));
  return 0;
}

async function setRegisters(vcpu: Vcpu, arg: UserArg, task: Task): Promise<number> {
  const values = KVM_REGS.decode(await task.copyIn(arg, KVM_REGS.bytes));
  for (const [i, name] of REGISTER_NAMES.entries()) vcpu.regs.q[i] = values[name];
  vcpu.rip = values.rip;
  vcpu.rflags = values.rflags;
  return 0;
}

/** State that is only kept for user space, zeroes at first. `key` is the request that sets it. */
function getKept(key: number, bytes: number): VcpuIoctl {
  return async (vcpu, arg, task) => {
    await task.copyOut(arg, vcpu.kept.get(key) ?? new Uint8Array(bytes));
    return 0;
  };
}

function setKept(key: number, bytes: number): VcpuIoctl {
  return async (vcpu, arg, task) => {
    vcpu.kept.set(key, await task.copyIn(arg, bytes));
    return 0;
  };
}
