/** KVM_TDX_INIT_VCPU: the vCPU's control structure in the module. */
import { PAGE_4K } from '../../../abi/address.ts';
import { TDH } from '../../../abi/leaves.ts';
import { R8, RDX } from '../../../abi/registers.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import type { Cpu } from '../../../kernel/cpu.ts';
import type { Task } from '../../../kernel/process/task.ts';
import { seamcall, setOperands } from '../../../kernel/seamcall.ts';
import { guestCpuid } from '../../guest-cpuid.ts';
import { invalid, type TdxCommand } from './command.ts';
import { VP_FIELD, writeVcpuField } from './metadata.ts';
import { POSTED_INTERRUPT_BYTES, POSTED_INTERRUPT_VECTOR } from './posted-interrupts.ts';
import { bugOn, notTaken, tdCall, VP_INIT_V1 } from './td-call.ts';
import type { TdxVcpu } from './tdx-vcpu.ts';

/** CPUID(1), ECX bit 21. */
const FEATURES_LEAF = 1;
const X2APIC = 1 << 21;
/** Pin-based control: process posted interrupts. */
const PROCESS_POSTED_INTERRUPTS = 1n << 7n;

/** `data` is the guest's first RCX. Throws EINVAL, ENOMEM, EIO with the VM broken. @internal */
export async function initVcpu(vcpu: TdxVcpu, task: Task, { flags, data }: TdxCommand): Promise<void> {
  if (flags !== 0) throw invalid('tdx-flags', 'KVM_TDX_INIT_VCPU takes no flags', { flags });
  if (vcpu.initialized) throw invalid('vcpu-initialized', 'KVM_TDX_INIT_VCPU has been done for this vCPU');
  if ((guestCpuid(vcpu.vcpu.cpuid, FEATURES_LEAF, 0)[2] & X2APIC) === 0) {
    throw invalid(
      'no-x2apic',
      'the vCPU’s CPUID lacks x2APIC, which TDs require: set it with KVM_SET_CPUID2',
    );
  }
  const cpu = task.kernel.cpus[task.cpu]!;
  const { host, vm } = vcpu.td;
  vcpu.postedInterrupts ||= host.pages.alloc('posted interrupts');
  cpu.lp.store(vcpu.postedInterrupts, new Uint8Array(POSTED_INTERRUPT_BYTES));
  createVcpu(vcpu, cpu);
  await vm.mmuLock.run(() => {
    setOperands(cpu, vcpu.tdvpr);
    const { q } = cpu.lp.regs;
    q[RDX] = data;
    q[R8] = BigInt(vcpu.vcpu.id);
    const status = seamcall(cpu, VP_INIT_V1);
    if (status !== STATUS.TDX_SUCCESS) throw bugOn(vm, TDH.vpInit, status);
  });
  writeVcpuField(vcpu, cpu, VP_FIELD.POSTED_INTERRUPT_VECTOR, BigInt(POSTED_INTERRUPT_VECTOR), 0xffffn);
  writeVcpuField(vcpu, cpu, VP_FIELD.POSTED_INTERRUPT_DESCRIPTOR, BigInt(vcpu.postedInterrupts));
  writeVcpuField(
    vcpu,
    cpu,
    VP_FIELD.PIN_BASED_CONTROLS,
    PROCESS_POSTED_INTERRUPTS,
    PROCESS_POSTED_INTERRUPTS,
  );
  vcpu.initialized = true;
}

/** VP.CREATE and VP.ADDCX of all pages. Pages that the module took stay with the vCPU when a later one fails. */
function createVcpu(vcpu: TdxVcpu, cpu: Cpu): void {
  const { host, vm, tdr } = vcpu.td;
  const { pages } = host;
  const taken: number[] = [];
  try {
    const count = host.sysinfo.tdCtrl.tdvpsBaseSize / PAGE_4K;
    for (let i = 0; i < count; i++) taken.push(pages.allocLent(cpu, i === 0 ? 'TDVPR' : 'TDCX'));
    const [tdvpr] = taken as [number];
    const created = tdCall(cpu, TDH.vpCreate, tdvpr, tdr);
    if (created !== STATUS.TDX_SUCCESS) throw notTaken(vm, TDH.vpCreate, created);
    vcpu.tdvpr = tdvpr;
    taken.shift();
    for (let page = taken[0]; page !== undefined; page = taken[0]) {
      const added = tdCall(cpu, TDH.vpAddcx, page, tdvpr);
      if (added !== STATUS.TDX_SUCCESS) throw bugOn(vm, TDH.vpAddcx, added);
      vcpu.tdcx.push(page);
      taken.shift();
    }
  } finally {
    for (const page of taken) pages.freeLent(cpu, page);
  }
}
