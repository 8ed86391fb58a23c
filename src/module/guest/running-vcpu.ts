/** A vCPU while it is entered on a logical processor: what the module keeps from VP.ENTER to the TD exit. */
import { createRegisters, type Registers } from '../../abi/registers.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { ControlStructure } from '../td/control-structure.ts';
import { type ATTRIBUTES, type CONFIG_FLAGS, hasAny, type TD_CTLS } from '../td/features.ts';
import { type Releasable, releaseAll } from '../td/held.ts';
import { TDCS, TDVPS } from '../td/layout.ts';
import type { TrustDomain } from '../td/trust-domain.ts';
import { VMCS, Vmcs } from '../td/vmcs.ts';
import type { TdxModule } from '../tdx-module.ts';

const REGISTERS = 16;

/** @public */
export class RunningVcpu {
  readonly module: TdxModule;
  readonly lp: LogicalProcessor;
  readonly td: TrustDomain;
  /** Address of the TDVPR. */
  readonly address: number;
  readonly tdvps: ControlStructure;
  readonly vmcs: Vmcs;
  /** The guest's registers; RSP is in the VMCS. */
  readonly regs: Registers = createRegisters();
  /** Guest RIP when the host entered the vCPU: no progress since then may be an attack by page faults. */
  readonly ripAtEntry: bigint;
  /** The last exit came with a bus lock that the host is to hear of. */
  busLocked = false;
  /** They never change once the TD can run. */
  readonly #attributes: bigint;
  #locks: readonly Releasable[] = [];

  constructor(
    module: TdxModule,
    lp: LogicalProcessor,
    td: TrustDomain,
    address: number,
    tdvps: ControlStructure,
  ) {
    this.module = module;
    this.lp = lp;
    this.td = td;
    this.address = address;
    this.tdvps = tdvps;
    this.vmcs = new Vmcs(tdvps);
    this.#attributes = td.tdcs.u64(TDCS.ATTRIBUTES);
    this.ripAtEntry = this.vmcs.read(VMCS.GUEST_RIP);
    for (let i = 0; i < REGISTERS; i++) this.regs.q[i] = tdvps.u64(TDVPS.GPRS + 8 * i);
  }

  get tdcs(): ControlStructure {
    return this.td.tdcs;
  }

  hasAttribute(mask: (typeof ATTRIBUTES)[keyof typeof ATTRIBUTES]): boolean {
    return hasAny(this.#attributes, mask);
  }

  hasConfigFlag(mask: (typeof CONFIG_FLAGS)[keyof typeof CONFIG_FLAGS]): boolean {
    return hasAny(this.tdcs.u64(TDCS.CONFIG_FLAGS), mask);
  }

  hasControl(mask: (typeof TD_CTLS)[keyof typeof TD_CTLS]): boolean {
    return hasAny(this.tdcs.u64(TDCS.TD_CTLS), mask);
  }

  /** Privilege level of the guest: the DPL of SS. */
  get cpl(): number {
    return (this.vmcs.read32(VMCS.GUEST_SS_AR) >>> 5) & 0b11;
  }

  /** Puts the registers into the TDVPS. */
  saveRegisters(): void {
    for (let i = 0; i < REGISTERS; i++) this.tdvps.setU64(TDVPS.GPRS + 8 * i, this.regs.q[i]!);
  }

  /** Puts the vCPU on the processor. `locks` keep its TDVPR and its TD until it leaves. */
  enter(locks: readonly Releasable[]): void {
    this.#locks = locks;
    this.module.running[this.lp.index] = this;
    this.module.lpsInTd++;
  }

  /** Takes the vCPU off the processor and lets go of its TDVPR and its TD. */
  leave(): void {
    this.module.running[this.lp.index] = undefined;
    this.module.lpsInTd--;
    releaseAll(this.#locks);
  }
}
