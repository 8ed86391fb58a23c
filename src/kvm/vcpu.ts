/** A virtual CPU. */
import { createRegisters, type Registers } from '../abi/registers.ts';
import { SleepLock } from '../kernel/process/lock.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import type { GuestCpuid } from './guest-cpuid.ts';
import type { RunPage } from './run-page.ts';
import type { AnsweredExit, VcpuExit } from './vcpu-exit.ts';
import type { Vm } from './vm.ts';

/** What a vCPU has to do before its next entry. @public */
export type VcpuRequest = 'tlb-flush';

/** RIP after reset, in the code segment at 0xffff0000. */
const RESET_RIP = 0xfff0n;
/** RFLAGS after reset: the bit that is always 1. */
const RESET_RFLAGS = 2n;

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
  rip = RESET_RIP;
  rflags = RESET_RFLAGS;
  /** What KVM_SET_CPUID2 gave. */
  cpuid: GuestCpuid = [];
  /** TSC frequency in kHz. */
  tscKhz: number;
  /** MSRs that were written, by the guest or user space. */
  readonly msrs = new Map<number, bigint>();
  /** State that user space keeps here and that nothing in the model uses: structures by the request that sets them. */
  readonly kept = new Map<number, Uint8Array>();
  /** Work for before the next entry. */
  readonly requests = new Set<VcpuRequest>();
  /** The exit that the next KVM_RUN completes with what user space answered. */
  unanswered: (VcpuExit & AnsweredExit) | null = null;
  #hasRun = false;
  #inGuest = false;
  #exitRequested = false;
  readonly #waiting: (() => void)[] = [];
  #sleeping: (() => void)[] = [];

  constructor(vm: Vm, id: number, runPage: RunPage) {
    this.vm = vm;
    this.id = id;
    this.runPage = runPage;
    this.tscKhz = vm.tscKhz;
    vm.kernel.openObjects.add('vcpu');
  }

  /** The processor it is loaded on. */
  get lp(): LogicalProcessor {
    return this.vm.kernel.cpus[this.cpu]!.lp;
  }

  /** The guest is entered, on `cpu`. */
  get inGuest(): boolean {
    return this.#inGuest;
  }

  /** The guest has been entered before. */
  get hasRun(): boolean {
    return this.#hasRun;
  }

  /** The backend is to leave the guest at the next occasion. */
  get isKicked(): boolean {
    return this.#exitRequested;
  }

  /** Makes the guest exit at the next occasion, or not be entered. */
  requestExit(): void {
    this.#exitRequested = true;
  }

  /** Resolves once the guest is not entered. */
  async whenOutside(): Promise<void> {
    if (this.#inGuest) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Resolves when somebody wakes the vCPU, which has halted. */
  whenWoken(): Promise<void> {
    return new Promise((resolve) => this.#sleeping.push(resolve));
  }

  /** An event for a halted vCPU. */
  wake(): void {
    for (const resolve of this.#sleeping.splice(0)) resolve();
  }

  /** Makes it leave the guest; resolves when it has. */
  async kick(): Promise<void> {
    this.requestExit();
    await this.whenOutside();
  }

  /** Run loop: the guest is about to be entered. */
  entering(): void {
    this.#exitRequested = false;
    this.#inGuest = true;
    this.#hasRun = true;
  }

  /** Run loop: the guest has been left. */
  left(): void {
    this.#inGuest = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** Gives its memory back, with the VM. */
  free(): void {
    this.runPage.free();
    this.vm.kernel.openObjects.remove('vcpu');
  }
}
