/** Hosts that are told to do the same things, and must answer alike. */
import { expect } from 'vitest';
import { PAGE_4K } from '../../src/abi/address.ts';
import { TDG } from '../../src/abi/leaves.ts';
import { R15, RAX, RCX } from '../../src/abi/registers.ts';
import { EXIT } from '../../src/abi/vm-exit.ts';
import type { Cpu } from '../../src/kernel/cpu.ts';
import { seamcall } from '../../src/kernel/seamcall.ts';
import type { Host } from '../../src/lab/host.ts';
import { loadHost, saveHost } from '../../src/lab/snapshot/save-host.ts';
import type { GuestRunner } from '../../src/module/guest/guest-runner.ts';
import type { RunningVcpu } from '../../src/module/guest/running-vcpu.ts';
import type { VmExit } from '../../src/module/guest/vm-exit.ts';
import { VMCS } from '../../src/module/td/vmcs.ts';
import type { TdxModule } from '../../src/module/tdx-module.ts';

const INTERRUPT: VmExit = {
  reason: EXIT.EXTERNAL_INTERRUPT,
  qualification: 0n,
  linearAddress: 0n,
  physicalAddress: 0n,
  interruptionInfo: 0x8000_0020,
  errorCode: 0,
  instructionLength: 2,
  instructionInfo: 0,
  idtVectoringInfo: 0,
};
const LONG_MODE = { csAr: 0xa09b, efer: 0xd01n, cr0: 0x8001_0031n } as const;

/** What the guest does next is in R15, so that it is saved with the TD: it accepts a page, asks for CPUID, is interrupted. */
const GUEST: GuestRunner = {
  run({ regs, vmcs }: RunningVcpu): VmExit {
    vmcs.writeNumber(VMCS.GUEST_CS_AR, LONG_MODE.csAr);
    vmcs.write(VMCS.GUEST_EFER, LONG_MODE.efer);
    vmcs.write(VMCS.GUEST_CR0, LONG_MODE.cr0);
    const step = regs.q[R15]!++;
    if (step % 3n === 1n) return { ...INTERRUPT, reason: EXIT.CPUID };
    if (step % 3n === 2n) return INTERRUPT;
    regs.q[RAX] = BigInt(TDG.memPageAccept);
    regs.q[RCX] = ((step / 3n) % 16n) << 12n;
    return { ...INTERRUPT, reason: EXIT.TDCALL, instructionLength: 4 };
  },
};

export class Lockstep {
  readonly hosts: Host[] = [];
  /** Leaves that succeeded while there was more than one host. */
  readonly succeeded = new Set<number>();

  constructor(host: Host) {
    this.#add(host);
  }

  /** A machine check may have ended a VP.ENTER half way. */
  get isVcpuEntered(): boolean {
    const { running } = this.hosts[0]!.machine.seam.module as TdxModule;
    return running.some((vcpu) => vcpu !== undefined);
  }

  /** From now on a host that was saved and loaded has to keep up. */
  saveAndLoad(): void {
    this.#add(loadHost(saveHost(this.hosts[0]!)));
  }

  /** Does the same on every host; what comes of it, an error's message included, must be the same. */
  async each<T>(work: (host: Host) => T | Promise<T>): Promise<T> {
    const outcomes: { readonly value?: T; readonly error?: string }[] = [];
    for (const host of this.hosts) {
      try {
        outcomes.push({ value: await work(host) });
      } catch (error) {
        outcomes.push({ error: String(error) });
      }
    }
    for (const outcome of outcomes.slice(1)) expect(outcome).toEqual(outcomes[0]);
    return outcomes[0]!.value!;
  }

  /** SEAMCALL on a CPU with RCX, RDX, R8, R9; returns every register. */
  async call(cpuIndex: number, leaf: number, ...operands: readonly bigint[]): Promise<BigUint64Array> {
    const after = await this.each(({ kernel }) => {
      const cpu: Cpu = kernel.cpus[cpuIndex]!;
      const { q } = cpu.lp.regs;
      q.fill(0n);
      [1, 2, 8, 9].forEach((register, i) => {
        q[register] = operands[i] ?? 0n;
      });
      q[RAX] = seamcall(cpu, leaf);
      return q.slice();
    });
    if (this.hosts.length > 1 && after?.[RAX] === 0n) this.succeeded.add(leaf);
    return after;
  }

  /** Address of a fresh page. */
  async page(): Promise<number> {
    return this.each(({ kernel }) => kernel.allocator.allocPages(0, { purpose: 'test' })! * PAGE_4K);
  }

  #add(host: Host): void {
    (host.machine.seam.module as TdxModule).guestRunner = GUEST;
    this.hosts.push(host);
  }
}
