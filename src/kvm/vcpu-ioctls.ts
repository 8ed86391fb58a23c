/** The ioctls of a vCPU by request. Its mutex is held. */
import { KernelError } from '../abi/errno.ts';
import { KVM } from '../abi/kvm/ioctl.ts';
import { KVM_FPU, KVM_MP_STATE, KVM_REGS, KVM_SREGS } from '../abi/kvm/structs.ts';
import { REGISTER_NAMES } from '../abi/registers.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import { expectNone } from './argument.ts';
import { isSameCpuid, readCpuid, writeCpuid } from './guest-cpuid.ts';
import { preFaultMemory } from './pre-fault.ts';
import { runVcpu } from './run-loop.ts';
import { setVcpuTscKhz } from './tsc.ts';
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
  [KVM.SET_MP_STATE, setMpState],
  [KVM.SET_TSC_KHZ, setVcpuTscKhz],
  [KVM.GET_TSC_KHZ, async ({ tscKhz }) => tscKhz],
  [KVM.SET_CPUID2, setCpuid],
  [KVM.GET_CPUID2, (vcpu, arg, task) => writeCpuid(vcpu.cpuid, arg, task)],
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

/** Once the vCPU has run, only what it has already is taken. */
async function setCpuid(vcpu: Vcpu, arg: UserArg, task: Task): Promise<number> {
  const cpuid = await readCpuid(arg, task);
  if (vcpu.hasRun && !isSameCpuid(cpuid, vcpu.cpuid)) {
    throw new KernelError('EINVAL', 'cpuid-after-run', 'the vCPU has run, and its CPUID stays as it is');
  }
  vcpu.cpuid = cpuid;
  return 0;
}

/** Other states than RUNNABLE are those of a local APIC in the kernel. */
async function setMpState(vcpu: Vcpu, arg: UserArg, task: Task): Promise<number> {
  const bytes = await task.copyIn(arg, KVM_MP_STATE.bytes);
  const { mp_state: state } = KVM_MP_STATE.decode(bytes);
  if (state !== KVM_MP_STATE_RUNNABLE && (vcpu.vm.irqchip === 'none' || !APIC_STATES.has(state))) {
    throw new KernelError('EINVAL', 'mp-state', `the vCPU cannot be in the state ${state}`, { state });
  }
  vcpu.kept.set(KVM.SET_MP_STATE, bytes);
  return 0;
}

const KVM_MP_STATE_RUNNABLE = 0;
/** UNINITIALIZED, INIT_RECEIVED, HALTED, SIPI_RECEIVED, AP_RESET_HOLD. */
const APIC_STATES: ReadonlySet<number> = new Set([1, 2, 3, 4, 9]);

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
