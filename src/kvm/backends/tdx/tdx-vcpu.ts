/** A TD's vCPU as KVM keeps it. */
import type { Vcpu } from '../../vcpu.ts';
import type { TrustDomain } from './trust-domain.ts';

/** @internal */
export class TdxVcpu {
  readonly vcpu: Vcpu;
  readonly td: TrustDomain;
  /** KVM_TDX_INIT_VCPU is done. */
  initialized = false;
  /** Address of the TDVPR, and of the other pages of the control structure; 0 and none before. */
  tdvpr = 0;
  readonly tdcx: number[] = [];
  /** Processor that the module associates it with, as far as KVM knows; -1 for none. */
  processor = -1;
  /** Registers that the host gave the guest, or got from it, last: operands and results of TDVMCALLs among them. */
  readonly args = new BigUint64Array(16);
  /** Page with the posted-interrupt descriptor; 0 before there is one. */
  postedInterrupts = 0;
  /** The shared EPT was given to the module. */
  sharedEptSet = false;
  /** The last exit was HLT with interrupts blocked: only an NMI wakes it. */
  haltedWithoutInterrupts = false;

  constructor(vcpu: Vcpu, td: TrustDomain) {
    this.vcpu = vcpu;
    this.td = td;
  }
}
