/** VMGEXIT with a request in the GHCB MSR itself: what a guest asks before it has a GHCB. */
import { GHCB_HV_FEATURE_SNP, GHCB_MSR, GHCB_VERSION, PSC_OPERATION } from '../../../abi/ghcb.ts';
import {
  KVM_HC_MAP_GPA_RANGE,
  KVM_MAP_GPA_RANGE,
  KVM_RUN_EXIT,
  KVM_SYSTEM_EVENT,
} from '../../../abi/kvm/exits.ts';
import { guestCpuid } from '../../guest-cpuid.ts';
import { exitsOnHypercall } from '../../hypercall.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import { HANDLED, type SnpGuest, type SnpVcpu } from './snp-guest.ts';

const INFO_MASK = 0xfffn;
const DATA_SHIFT = 12n;
const GFN_MASK = 0xff_ffff_ffffn;
/** No preference, in PREF_GPA_RESP. */
const ALL_ONES_GFN = 0xf_ffff_ffff_ffffn;
const PSC_OPERATION_SHIFT = 52n;
const PSC_FAILED = 1n << 32n;
const HIGH = 32n;

/** The MSR after reset: versions of the protocol and the C-bit. @internal */
export function sevInfo({ ghcbVersion, host }: SnpGuest): bigint {
  const versions = (BigInt(ghcbVersion) << 48n) | (BigInt(GHCB_VERSION.min) << 32n);
  return versions | (BigInt(host.snp.cBit) << 24n) | BigInt(GHCB_MSR.SEV_INFO);
}

/** @internal */
export function handleMsrRequest(vcpu: SnpVcpu): VcpuExit {
  const { ghcb, guest } = vcpu;
  const data = ghcb >> DATA_SHIFT;
  switch (Number(ghcb & INFO_MASK)) {
    case GHCB_MSR.SEV_INFO_REQ:
      vcpu.ghcb = sevInfo(guest);
      return HANDLED;
    case GHCB_MSR.CPUID_REQ: {
      const registers = guestCpuid(vcpu.vcpu.cpuid, Number(ghcb >> HIGH), 0);
      const value = registers[Number((ghcb >> 30n) & 3n)]!;
      vcpu.ghcb = (BigInt(value) << HIGH) | BigInt(GHCB_MSR.CPUID_RESP);
      return HANDLED;
    }
    case GHCB_MSR.HV_FT_REQ:
      vcpu.ghcb = (GHCB_HV_FEATURE_SNP << DATA_SHIFT) | BigInt(GHCB_MSR.HV_FT_RESP);
      return HANDLED;
    case GHCB_MSR.PREF_GPA_REQ:
      vcpu.ghcb = (ALL_ONES_GFN << DATA_SHIFT) | BigInt(GHCB_MSR.PREF_GPA_RESP);
      return HANDLED;
    case GHCB_MSR.REG_GPA_REQ:
      vcpu.registeredGhcb = data;
      vcpu.ghcb = (data << DATA_SHIFT) | BigInt(GHCB_MSR.REG_GPA_RESP);
      return HANDLED;
    case GHCB_MSR.PSC_REQ:
      return changePageState(vcpu);
    case GHCB_MSR.TERM_REQ:
      return { kind: 'system-event', type: KVM_SYSTEM_EVENT.SEV_TERM, data: [ghcb] };
    default:
      // The guest finds its request where it left it.
      return HANDLED;
  }
}

/** One page becomes private or shared: user space decides and says so. */
function changePageState(vcpu: SnpVcpu): VcpuExit {
  const { ghcb, guest } = vcpu;
  const operation = Number((ghcb >> PSC_OPERATION_SHIFT) & 0xfn);
  const gfn = (ghcb >> DATA_SHIFT) & GFN_MASK;
  const answer = (failed: boolean): void => {
    vcpu.ghcb = BigInt(GHCB_MSR.PSC_RESP) | (failed ? PSC_FAILED : 0n);
  };
  const isKnown = operation === PSC_OPERATION.PRIVATE || operation === PSC_OPERATION.SHARED;
  if (!isKnown || !exitsOnHypercall(guest.vm, KVM_HC_MAP_GPA_RANGE)) {
    answer(true);
    return HANDLED;
  }
  const attributes = operation === PSC_OPERATION.PRIVATE ? KVM_MAP_GPA_RANGE.ENC_STAT : 0n;
  return {
    kind: 'hypercall',
    nr: KVM_HC_MAP_GPA_RANGE,
    args: [gfn << DATA_SHIFT, 1n, attributes | KVM_MAP_GPA_RANGE.PAGE_SZ_4K],
    isLongMode: true,
    complete: (union) => answer(KVM_RUN_EXIT.HYPERCALL.decode(union).ret !== 0n),
  };
}
