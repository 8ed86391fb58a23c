/** One SNP guest, as the host knows it. */
import { PAGE_4K } from '../../../abi/address.ts';
import type { GuestEvent } from '../../../machine/guest-code.ts';
import type { SnpVmcb } from '../../../machine/snp/vmrun.ts';
import type { Vcpu } from '../../vcpu.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import type { Vm } from '../../vm.ts';
import type { GhcbPage } from './ghcb-page.ts';
import { NestedPages } from './nested-pages.ts';
import type { SnpHost } from './snp-host.ts';

/** @public */
export class SnpGuest {
  readonly vm: Vm;
  readonly host: SnpHost;
  readonly nested = new NestedPages();
  readonly vcpus = new Map<Vcpu, SnpVcpu>();
  /** 0 before KVM_SEV_INIT2. */
  asid = 0;
  vmsaFeatures = 0n;
  ghcbVersion = 0;
  /** Pages for requests to the firmware and its responses; the second is the firmware's. */
  requestPfns: readonly [number, number] | null = null;
  /** The firmware's context page; null before LAUNCH_START. */
  contextPfn: number | null = null;
  policy = 0n;
  /** LAUNCH_FINISH has been done. */
  isLaunched = false;

  constructor(vm: Vm, host: SnpHost) {
    this.vm = vm;
    this.host = host;
  }

  get isInitialised(): boolean {
    return this.asid !== 0;
  }
}

/** What the host keeps of a vCPU: its VMCB. @public */
export class SnpVcpu implements SnpVmcb {
  readonly guest: SnpGuest;
  readonly vcpu: Vcpu;
  /** Page frame of the save area. */
  readonly vmsaPfn: number;
  /** The save area is the guest's, encrypted. */
  isProtected = false;
  ghcb: bigint;
  inject: GuestEvent | null = null;
  /** Page frame that the guest registered for its GHCB. */
  registeredGhcb: bigint | null = null;
  /** The GHCB of the last VMGEXIT; open while user space has to answer. */
  ghcbPage: GhcbPage | null = null;
  /** A VMGEXIT whose GHCB the host could not reach yet. */
  isExitPending = false;

  constructor(guest: SnpGuest, vcpu: Vcpu, vmsaPfn: number, ghcb: bigint) {
    this.guest = guest;
    this.vcpu = vcpu;
    this.vmsaPfn = vmsaPfn;
    this.ghcb = ghcb;
  }

  get asid(): number {
    return this.guest.asid;
  }

  get vmsaAddress(): number {
    return this.vmsaPfn * PAGE_4K;
  }

  get index(): number {
    return this.vcpu.id;
  }

  nested(gfn: number): ReturnType<NestedPages['lookup']> {
    const { nested, vm } = this.guest;
    return nested.lookup(gfn, vm.slots.generation);
  }
}

/** What an exit comes to that the kernel deals with by itself. @internal */
export const HANDLED: VcpuExit = { kind: 'handled' };
