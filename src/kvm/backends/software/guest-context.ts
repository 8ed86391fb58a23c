/** A vCPU without protection as the processor sees it: second stage by the host's tables, a TLB until it is flushed. */
import { offsetIn, PAGE_4K, pfnOf } from '../../../abi/address.ts';
import type { Registers } from '../../../abi/registers.ts';
import { EXIT } from '../../../abi/vm-exit.ts';
import { VECTOR_UD } from '../../../machine/exceptions.ts';
import type {
  GuestAccessKind,
  GuestContext,
  GuestEvent,
  GuestExit,
  GuestPhysical,
} from '../../../machine/guest-code.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';
import type { Vcpu } from '../../vcpu.ts';
import type { SecondStage } from './second-stage.ts';

/** @internal */
export class SoftwareContext implements GuestContext {
  readonly address: number;
  inject: GuestEvent | null = null;
  emulated: Uint8Array | null = null;
  /** The guest has executed something. */
  hasBegun = false;
  readonly #vcpu: Vcpu;
  readonly #stage: SecondStage;
  /** What the processor remembers of the second stage, by guest frame, however the tables change. */
  readonly #tlb = new Map<number, { readonly pfn: number; readonly writable: boolean }>();

  /** `address` is that of the vCPU's VMCS. */
  constructor(vcpu: Vcpu, stage: SecondStage, address: number) {
    this.#vcpu = vcpu;
    this.#stage = stage;
    this.address = address;
  }

  get index(): number {
    return this.#vcpu.id;
  }

  get lp(): LogicalProcessor {
    return this.#vcpu.lp;
  }

  get regs(): Registers {
    return this.#vcpu.regs;
  }

  get rip(): bigint {
    return this.#vcpu.rip;
  }

  set rip(value: bigint) {
    this.#vcpu.rip = value;
  }

  /** What the processor remembers: guest frame and page frame. */
  *cached(): Generator<{ readonly gfn: number; readonly pfn: number }> {
    for (const [gfn, { pfn }] of this.#tlb) yield { gfn, pfn };
  }

  /** INVEPT. */
  flushTlb(): void {
    this.#tlb.clear();
  }

  translate(gpa: number, access: GuestAccessKind): GuestPhysical | GuestExit {
    const gfn = pfnOf(gpa);
    const entry = this.#tlb.get(gfn) ?? this.#walk(gfn);
    if (entry === undefined || (access === 'write' && !entry.writable)) {
      // A violation takes the processor's entry for the frame with it.
      this.#tlb.delete(gfn);
      return { reason: EXIT.EPT_VIOLATION, qualification: 0n, gpa, instructionLengthBytes: 0 };
    }
    return { address: entry.pfn * PAGE_4K + offsetIn(gpa, PAGE_4K), keyId: 0 };
  }

  instruction(): GuestEvent {
    return { vector: VECTOR_UD };
  }

  intercepts(): boolean {
    return true;
  }

  #walk(gfn: number): { readonly pfn: number; readonly writable: boolean } | undefined {
    const mapping = this.#stage.find(gfn);
    if (mapping === undefined) return undefined;
    const entry = { pfn: mapping.pfn + (gfn - mapping.gfn), writable: mapping.writable };
    this.#tlb.set(gfn, entry);
    return entry;
  }
}
