/**
 * TDH.VP.INIT: gives a vCPU its first state and associates it with the calling logical processor (module facts 6,
 * 10). Version 1 also gives it an x2APIC id, in R8.
 */
import { TDH } from '../../abi/leaves.ts';
import { OPERAND } from '../../abi/operands.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { R8, RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { MODULE_MSR } from '../platform-msrs.ts';
import { type Held, locking } from '../td/held.ts';
import { TDCS, TDVPS, VCPU_STATE } from '../td/layout.ts';
import { enterOpState, lockImplicitTdr, lockPage } from '../td/operands.ts';
import type { TrustDomain } from '../td/trust-domain.ts';
import { associateNewVcpu } from '../td/vcpu.ts';
import { initialiseVcpu } from '../td/vcpu-init.ts';
import { initialiseVmcs } from '../td/vmcs-init.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const vpInit: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held, version: number): bigint {
  const { regs } = lp;
  const platform = module.platform!;
  if (lp.rdmsr(MODULE_MSR.TSC_ADJUST) !== platform.msrs.get(MODULE_MSR.TSC_ADJUST)) {
    return withOperand(STATUS.TDX_INCONSISTENT_MSR, MODULE_MSR.TSC_ADJUST);
  }
  if (version > 1) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RAX);
  const root = lockPage(module, held, regs, RCX, 'exclusive', PAGE_TYPE.TDVPR);
  if (typeof root === 'bigint') return root;
  const td = lockImplicitTdr(module, held, root.walk.entry.owner, version > 0 ? 'exclusive' : 'shared');
  if (typeof td === 'bigint') return td;
  const entered = enterOpState(held, td, TDH.vpInit, 'shared');
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const { tdcs } = td;
  const tdvps = td.tdvps(root.address);
  if (tdvps === undefined) return STATUS.TDX_TDCX_NUM_INCORRECT;
  const state = tdvps.u8(TDVPS.VCPU_STATE);
  if (state !== VCPU_STATE.UNINITIALIZED) return withOperand(STATUS.TDX_VCPU_STATE_INCORRECT, state);
  const index = tdcs.u32(TDCS.NUM_VCPUS);
  if (index >= tdcs.u32(TDCS.MAX_VCPUS)) return STATUS.TDX_MAX_VCPUS_EXCEEDED;
  tdvps.setU32(TDVPS.VCPU_INDEX, index);
  const identified = version === 0 ? giveUpTopology(td) : setX2ApicId(td, lp, index);
  if (identified !== STATUS.TDX_SUCCESS) return identified;

  tdcs.setU32(TDCS.NUM_VCPUS, index + 1);
  initialiseVcpu(module, lp, td, tdvps, regs.q[RDX]!);
  associateNewVcpu(td, tdvps, lp);
  for (let vm = 0; vm <= tdcs.u16(TDCS.NUM_L2_VMS); vm++) initialiseVmcs(platform, td, tdvps, vm);
  return STATUS.TDX_SUCCESS;
}

/** A vCPU without an x2APIC id leaves the TD without a topology to enumerate. */
function giveUpTopology({ tdcs }: TrustDomain): bigint {
  tdcs.setFlag(TDCS.TOPOLOGY_ENUM_CONFIGURED, false);
  tdcs.setFlag(TDCS.VE_REDUCTION_VALID, false);
  return STATUS.TDX_SUCCESS;
}

function setX2ApicId({ tdcs }: TrustDomain, lp: LogicalProcessor, index: number): bigint {
  if (lp.regs.d[2 * R8 + 1] !== 0) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R8);
  const id = lp.regs.d[2 * R8]!;
  for (let other = 0; other < index; other++) {
    if (tdcs.u32(TDCS.X2APIC_IDS + 4 * other) === id) return withOperand(STATUS.TDX_X2APIC_ID_NOT_UNIQUE, id);
  }
  tdcs.setU32(TDCS.X2APIC_IDS + 4 * index, id);
  return STATUS.TDX_SUCCESS;
}
