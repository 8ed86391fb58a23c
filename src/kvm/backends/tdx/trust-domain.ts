/** A TD as KVM keeps it: state, KeyID, control pages, and the rule for SEAMCALLs that must not fail. */
import { type Cpu, firstOnline } from '../../../kernel/cpu.ts';
import type { Vm } from '../../vm.ts';
import type { TdxHost } from './tdx-host.ts';

/** Life of a TD (Linux host rules 2.3). @public */
export type TdState = 'uninitialized' | 'initialized' | 'runnable';

/** @internal */
export class TrustDomain {
  readonly vm: Vm;
  readonly host: TdxHost;
  state: TdState = 'uninitialized';
  /** 0 while no KeyID is assigned. */
  keyId = 0;
  /** Address of the TDR; 0 while there is none. */
  tdr = 0;
  readonly tdcs: number[] = [];
  attributes = 0n;
  xfam = 0n;
  tscOffset = 0n;
  tscMultiplier = 0n;
  /** Bit of a GPA that makes it shared; null before the TD is initialised. */
  sharedBit: number | null = null;
  /** A call that removes pages is being repeated: no vCPU may enter and get in its way. */
  waitsForZap = false;

  constructor(vm: Vm, host: TdxHost) {
    this.vm = vm;
    this.host = host;
  }

  get hasKeyId(): boolean {
    return this.keyId > 0;
  }

  /** Level of the entries in the root of the secure EPT: 3 with four levels, 4 with five. */
  get rootLevel(): number {
    return this.sharedBit === SHARED_BIT_5_LEVEL ? 4 : 3;
  }

  /** A processor for calls that any can do. */
  get cpu(): Cpu {
    return firstOnline(this.vm.kernel.cpus);
  }

  /** Some vCPU is in the guest. */
  get isRunning(): boolean {
    for (const vcpu of this.vm.vcpus.values()) if (vcpu.inGuest) return true;
    return false;
  }

  /** Makes all vCPUs leave the guest; costs nothing when none is in it. */
  async kick(): Promise<void> {
    if (this.isRunning) await this.vm.kickAll();
  }
}

/** Shared bits of GPAs 48 and 52 bits wide. @internal */
export const SHARED_BIT_4_LEVEL = 47;
/** @internal */
export const SHARED_BIT_5_LEVEL = 51;
