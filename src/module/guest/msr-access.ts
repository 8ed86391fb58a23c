/** RDMSR and WRMSR of a TD that the MSR bitmaps leave to the module (module facts 11; docs/rules/guest.md). */
import { MSR_POLICIES, type MsrAction } from '../../abi/msr-policy.ts';
import { RAX, RCX, RDX } from '../../abi/registers.ts';
import { fatal } from '../fatal.ts';
import { TD_CTLS } from '../td/features.ts';
import { CPUID_FLAG } from '../td/layout.ts';
import { isMsrInBitmaps, isMsrOpen, type MsrAccess } from '../td/msr-bitmaps.ts';
import { type Refusal, refuse, VE_CATEGORY } from './injection.ts';
import { MSR_READERS, MSR_WRITERS } from './msr-rules.ts';
import type { RunningVcpu } from './running-vcpu.ts';
import type { VmExit } from './vm-exit.ts';

type Flag = (typeof CPUID_FLAG)[keyof typeof CPUID_FLAG];

/** Feature that turns a #GP into a #VE; `has` is the value of its flag for a TD that has it. */
const FEATURES: Readonly<Partial<Record<MsrAction, { readonly flag: Flag; readonly has: boolean }>>> = {
  GP_OR_VE_BY_ACPI: { flag: CPUID_FLAG.ACPI, has: true },
  GP_OR_VE_BY_CORE_CAPABILITIES: { flag: CPUID_FLAG.NO_CORE_CAPABILITIES, has: false },
  GP_OR_VE_BY_DCA: { flag: CPUID_FLAG.DCA, has: true },
  GP_OR_VE_BY_EST: { flag: CPUID_FLAG.EST, has: true },
  GP_OR_VE_BY_MCA: { flag: CPUID_FLAG.NO_MCA, has: false },
  GP_OR_VE_BY_MTRR: { flag: CPUID_FLAG.NO_MTRR, has: false },
  GP_OR_VE_BY_PCONFIG: { flag: CPUID_FLAG.PCONFIG, has: true },
  GP_OR_VE_BY_RDT_A: { flag: CPUID_FLAG.RDT_A, has: true },
  GP_OR_VE_BY_RDT_M: { flag: CPUID_FLAG.RDT_M, has: true },
  GP_OR_VE_BY_TM2: { flag: CPUID_FLAG.TM2, has: true },
  GP_OR_VE_BY_TME: { flag: CPUID_FLAG.TME, has: true },
  GP_OR_VE_BY_TSC_DEADLINE: { flag: CPUID_FLAG.TSC_DEADLINE, has: true },
};

/** RDMSR: the value goes into EDX:EAX, unless the access is refused. @internal */
export function rdmsrExit(vcpu: RunningVcpu, { reason }: VmExit): void {
  const { q, d } = vcpu.regs;
  const msr = d[2 * RCX]!;
  const answer = isMsrInBitmaps(msr)
    ? (MSR_READERS.get(msr)?.(vcpu, msr) ?? generalRule(vcpu, msr, 'read'))
    : VE_CATEGORY.NON_CONFIG_PARAVIRT;
  if (answer === 'unchanged') return;
  if (typeof answer !== 'bigint') {
    refuse(vcpu, answer, { reason });
    return;
  }
  q[RAX] = answer & 0xffff_ffffn;
  q[RDX] = answer >> 32n;
}

/** WRMSR of EDX:EAX. @internal */
export function wrmsrExit(vcpu: RunningVcpu, { reason }: VmExit): void {
  const { d } = vcpu.regs;
  const msr = d[2 * RCX]!;
  const value = (BigInt(d[2 * RDX]!) << 32n) | BigInt(d[2 * RAX]!);
  const answer = isMsrInBitmaps(msr)
    ? (MSR_WRITERS.get(msr)?.(vcpu, value, msr) ?? generalRule(vcpu, msr, 'write'))
    : VE_CATEGORY.NON_CONFIG_PARAVIRT;
  if (answer !== 'done') refuse(vcpu, answer, { reason });
}

/** MSRs without a rule of their own. */
function generalRule(vcpu: RunningVcpu, msr: number, access: MsrAccess): Refusal {
  const policy = MSR_POLICIES.find(({ start, end }) => start <= msr && msr <= end);
  if (policy === undefined) return byReducedVe(vcpu);
  if (isMsrOpen(vcpu.module.platform!, vcpu.tdcs, policy, access)) {
    fatal(`VM exit for MSR 0x${msr.toString(16)}, which the TD accesses directly`);
  }
  const action = access === 'read' ? policy.readAction : policy.writeAction;
  if (action === 'VE') return VE_CATEGORY.NON_CONFIG_PARAVIRT;
  if (action === 'GP') return 'gp';
  const feature = FEATURES[action];
  if (feature === undefined) return byReducedVe(vcpu);
  return vcpu.td.cpuidFlag(feature.flag) === feature.has ? VE_CATEGORY.CONFIG_PARAVIRT : 'gp';
}

/** A TD that reduces #VEs takes the #GP of a CPU without the MSR. */
function byReducedVe(vcpu: RunningVcpu): Refusal {
  return vcpu.hasControl(TD_CTLS.REDUCE_VE) ? 'gp' : VE_CATEGORY.CONFIG_PARAVIRT;
}
