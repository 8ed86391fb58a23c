/** A virtual CPU. */
import { createRegisters, type Registers } from '../abi/registers.ts';
import { SleepLock } from '../kernel/process/lock.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import type { RunPage } from './run-page.ts';
import type { Completion } from './vcpu-exit.ts';
import type { Vm } from './vm.ts';

/** What a vCPU has to do before its next entry. @public */
export type VcpuRequest = 'tlb-flush';

/** @public */
export class Vcpu {
  readonly vm: Vm;
  /** Number that user space chose; the APIC id. */
  readonly id: number;
  /** Held by every ioctl on the vCPU. */
  readonly mutex = new SleepLock();
  readonly runPage: RunPage;
  /** Index of the logical processor it is loaded on, or was last; -1 before the first time. */
  cpu = -1;
  /** Registers, where the host sees them. */
  readonly regs: Registers = createRegisters();
  rip = 0xfff0n;
  rflags = 2n;
  /** The guest is entered, on `cpu`. */
  inGuest = false;
  /** Work for before the next entry. */
  readonly requests = new Set<VcpuRequest>();
  /** What the next KVM_RUN finishes. */
  completion: Completion | null = null;
  #kicked = false;
  #left: (() => void)[] = [];

  constructor(vm: Vm, id: number, runPage: RunPage) {
    this.vm = vm;
    this.id = id;
    this.runPage = runPage;
  }

  /** The processor it is loaded on. */
  get lp(): LogicalProcessor {
    return this.vm.kernel.cpus[this.cpu]!.lp;
  }

  /** The backend is to leave the guest: set by `kick`, cleared by the run loop. */
  get isKicked(): boolean {
    return this.#kicked;
  }

  /** Makes it leave the guest; resolves when it has. */
  async kick(): Promise<void> {
    this.#kicked = true;
    if (this.inGuest) await new Promise<void>((resolve) => this.#left.push(resolve));
  }

  /** Run loop: the guest is about to be entered. */
  entering(): void {
    this.#kicked = false;
    this.inGuest = true;
  }

  /** Run loop: the guest has been left. */
  left(): void {
    this.inGuest = false;
    for (const resolve of this.#left.splice(0)) resolve();
  }
}
