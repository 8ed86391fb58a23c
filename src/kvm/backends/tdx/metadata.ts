/** Metadata of TDs and vCPUs that KVM reads and writes (Linux host rules 1.7; ids of the module's field tables). */
import { TDH } from '../../../abi/leaves.ts';
import { R8, R9, RDX } from '../../../abi/registers.ts';
import { formatStatus } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import type { Cpu } from '../../../kernel/cpu.ts';
import { seamcall, setOperands } from '../../../kernel/seamcall.ts';
import { KVM_PREFIX } from './td-call.ts';
import type { TdxVcpu } from './tdx-vcpu.ts';
import type { TrustDomain } from './trust-domain.ts';

/** Fields of a TD. @internal */
export const TD_FIELD = {
  TSC_OFFSET: 0x1110_0003_0000_000an,
  TSC_MULTIPLIER: 0x1110_0003_0000_000bn,
  CPUID_VALUES: 0x9410_0003_0000_0000n,
} as const;

/** Fields of a vCPU: of its VMCS, of its state, and of its management. @internal */
export const VP_FIELD = {
  POSTED_INTERRUPT_VECTOR: 0x0024_0001_0000_0002n,
  POSTED_INTERRUPT_DESCRIPTOR: 0x0024_0003_0000_2016n,
  SHARED_EPTP: 0x0024_0003_0000_203cn,
  PIN_BASED_CONTROLS: 0x0024_0002_0000_4000n,
  PEND_NMI: 0x2020_0000_0000_000bn,
  VCPU_STATE_DETAILS: 0x9120_0003_0000_0100n,
} as const;

/** MNG.RD; null where the module has no such field. @internal */
export function readTdField(td: TrustDomain, cpu: Cpu, field: bigint): bigint | null {
  setOperands(cpu, td.tdr);
  const { q } = cpu.lp.regs;
  q[RDX] = field;
  return seamcall(cpu, TDH.mngRd) === STATUS.TDX_SUCCESS ? q[R8]! : null;
}

/** VP.RD; 0, with the VM broken, when the module refuses. @internal */
export function readVcpuField({ td, tdvpr }: TdxVcpu, cpu: Cpu, field: bigint): bigint {
  setOperands(cpu, tdvpr);
  const { q } = cpu.lp.regs;
  q[RDX] = field;
  const status = seamcall(cpu, TDH.vpRd);
  if (status === STATUS.TDX_SUCCESS) return q[R8]!;
  failed(td, 'TDH.VP.RD', field, status);
  return 0n;
}

/** VP.WR of the bits in `mask`. The VM is broken when the module refuses, and what KVM is doing goes on. @internal */
export function writeVcpuField(vcpu: TdxVcpu, cpu: Cpu, field: bigint, value: bigint, mask = ALL): void {
  setOperands(cpu, vcpu.tdvpr);
  const { q } = cpu.lp.regs;
  q[RDX] = field;
  q[R8] = value;
  q[R9] = mask;
  const status = seamcall(cpu, TDH.vpWr);
  if (status !== STATUS.TDX_SUCCESS) failed(vcpu.td, 'TDH.VP.WR', field, status);
}

const ALL = 0xffff_ffff_ffff_ffffn;

function failed({ vm }: TrustDomain, leaf: string, field: bigint, status: bigint): void {
  const text = `${leaf} of field 0x${field.toString(16)} failed: ${formatStatus(status)}`;
  vm.kernel.log.write('err', KVM_PREFIX, text, 'kvm-metadata-failed');
  vm.bug(text, { field, status });
}
