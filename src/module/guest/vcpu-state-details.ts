import type { ControlStructure } from '../td/control-structure.ts';
import { hasAny } from '../td/features.ts';
import { TDCS, TDVPS } from '../td/layout.ts';
import { VMCS } from '../td/vmcs.ts';
import type { RunningVcpu } from './running-vcpu.ts';

/** TDVPS.VCPU_STATE_DETAILS of the TD's own VM: virtual interrupt pending or in service, virtual NMI pending. */
const INTERRUPT_PENDING = 1n << 0n;
const INTERRUPT_IN_SERVICE = 1n << 4n;
const NMI_PENDING = 1n << 8n;
/** The same of any VM, as TDCS.VM_CTLS asks for a hint on them, in its bits 1, 2 and 3. */
const ANY_OF: readonly (readonly [control: bigint, details: bigint])[] = [
  [1n << 1n, 0xfn],
  [1n << 2n, 0xf0n],
  [1n << 3n, 0xf00n],
];
/** Offset of the processor priority register in the virtual APIC page. */
const PPR = 0xa0;
const PRIORITY = 0xf0;
/** Interrupt vectors up to here are exceptions and never in service. */
const LAST_EXCEPTION = 30;

/** True when the virtual APIC wants to deliver an interrupt; `status` is the guest interrupt status of the VMCS. @internal */
export function isInterruptRequested(tdvps: ControlStructure, status: number): boolean {
  return (status & PRIORITY) > (tdvps.u8(TDVPS.VAPIC + PPR) & PRIORITY);
}

/** Notes what the vCPU waits for; true when the host is to be told that it wants to run soon. @internal */
export function updateVcpuStateDetails({ tdvps, tdcs, vmcs }: RunningVcpu): boolean {
  const status = vmcs.read32(VMCS.GUEST_INTERRUPT_STATUS);
  const inService = (status >>> 8) & 0xff;
  let details = tdvps.u64(TDVPS.VCPU_STATE_DETAILS);
  const assign = (bit: bigint, on: boolean): void => {
    details = on ? details | bit : details & ~bit;
  };
  assign(INTERRUPT_PENDING, isInterruptRequested(tdvps, status));
  assign(INTERRUPT_IN_SERVICE, inService > LAST_EXCEPTION);
  assign(NMI_PENDING, tdvps.flag(TDVPS.PEND_NMI));
  tdvps.setU64(TDVPS.VCPU_STATE_DETAILS, details);
  const controls = tdcs.u64(TDCS.VM_CTLS);
  return ANY_OF.some(([control, mask]) => hasAny(controls, control) && hasAny(details, mask));
}
