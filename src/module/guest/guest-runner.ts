/** The interface to whatever executes a guest: a scripted kernel, an emulator, real hardware. */
import type { RunningVcpu } from './running-vcpu.ts';
import type { VmExit } from './vm-exit.ts';

/** @public */
export interface GuestRunner {
  /**
   * Runs the guest from the registers of `vcpu` and its VMCS, an injected event included, until something makes it
   * exit. Leaves its registers in `vcpu.regs` and all other state, RIP included, in the VMCS.
   */
  run(vcpu: RunningVcpu): VmExit;
}
