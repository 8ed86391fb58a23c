/** TDVMCALLs that KVM leaves to user space (GHCI; exit KVM_EXIT_TDX). */
import { KVM_RUN_EXIT } from '../../abi/kvm/exits.ts';
import { writeUnion } from './guest-vcpu.ts';
import { callsOf, type VcpuEnd, type VcpuRun } from './vcpu-run.ts';

const TDVMCALL = { getTdVmCallInfo: 0x1_0000n, setupEventNotify: 0x1_0004n } as const;
const SUCCESS = 0n;
/** What leaf 1 of GetTdVmCallInfo reports in R11: SetupEventNotifyInterrupt is there, and GetQuote is not. */
const SUBFUNCTIONS = 1n << 1n;

/** Calls that are not answered keep KVM's answer: the function is not supported. @internal */
export async function answerTdvmcall(run: VcpuRun, union: Uint8Array): Promise<VcpuEnd | null> {
  const { nr } = KVM_RUN_EXIT.TDX_UNKNOWN.decode(union);
  if (nr === TDVMCALL.getTdVmCallInfo) {
    KVM_RUN_EXIT.TDX_GET_TDVMCALL_INFO.patch(union, { ret: SUCCESS, r11: SUBFUNCTIONS });
  } else if (nr === TDVMCALL.setupEventNotify) {
    KVM_RUN_EXIT.TDX_SETUP_EVENT_NOTIFY.patch(union, { ret: SUCCESS });
  } else return null;
  await writeUnion(callsOf(run), run.vcpu, union);
  return null;
}
