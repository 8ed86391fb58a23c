/**
 * VMRUN of an SNP guest: registers come from the save area in the guest's own memory and go back there; between, every
 * access and every instruction is held against the reverse map table (AMD APM volume 2, 15.35 and 15.36).
 */
import { offsetIn, PAGE_4K, pfnOf } from '../../abi/address.ts';
import { GHCB_EXIT } from '../../abi/ghcb.ts';
import { createRegisters, RAX, RCX, RDX, type Registers, regNumber } from '../../abi/registers.ts';
import { EXIT } from '../../abi/vm-exit.ts';
import { VECTOR_UD, VECTOR_VC } from '../exceptions.ts';
import type { GuestAccessKind, GuestContext, GuestEvent, GuestExit, GuestPhysical } from '../guest-code.ts';
import type { LogicalProcessor } from '../lp.ts';
import { RMP_2M, RMP_4K } from './rmp.ts';
import { accessBits, checkGuestAccess, VC_NOT_VALIDATED } from './rmp-checks.ts';
import { type GuestRmpResult, pvalidate, rmpAdjust } from './rmp-instructions.ts';
import type { Snp } from './snp.ts';
import { SEV_FEATURES, VMSA, VMSA_REGISTER_OFFSETS } from './vmsa.ts';

/** Where the nested page tables lead; 'mmio' is an entry with a reserved bit, for addresses that are no memory. @public */
export type NestedMapping =
  | { readonly pfn: number; readonly isLarge: boolean; readonly writable: boolean }
  | 'mmio'
  | null;

/** What VMRUN takes from the VMCB. The hardware writes `ghcb` and takes `inject`. @public */
export interface SnpVmcb {
  readonly asid: number;
  /** Physical address of the save area. */
  readonly vmsaAddress: number;
  /** APIC id of the vCPU. */
  readonly index: number;
  readonly nested: (gfn: number) => NestedMapping;
  /** The GHCB MSR. */
  ghcb: bigint;
  inject: GuestEvent | null;
}

/** Exits that a guest with encrypted state turns into #VC: error codes by basic exit reason. */
const NON_AUTOMATIC: ReadonlyMap<number, number> = new Map([
  [EXIT.CPUID, GHCB_EXIT.CPUID],
  [EXIT.IO, GHCB_EXIT.IOIO],
  [EXIT.RDMSR, GHCB_EXIT.MSR],
  [EXIT.WRMSR, GHCB_EXIT.MSR],
  [EXIT.VMCALL, GHCB_EXIT.VMMCALL],
]);
/** Exits behind the instruction: HLT, VMGEXIT. */
const COMPLETED_BY_EXIT: ReadonlySet<number> = new Set([EXIT.HLT, EXIT.VMCALL]);
const VMGEXIT_LENGTH = 4;
/** SEV_STATUS: bits 0 and 1 for SEV and SEV-ES, then those of SEV_FEATURES (APM volume 2, 15.34.10). */
const SEV_STATUS_MSR = 0xc001_0131;
const SEV_STATUS_ENABLED = 0b11n;
const SEV_STATUS_FEATURES_SHIFT = 2n;
const LOW_32 = 0xffff_ffffn;
const CARRY = 1n;
const TWO_32 = 0x1_0000_0000n;

/** Runs the guest of `vmcb` until it exits. @public */
export function vmrun(lp: LogicalProcessor, vmcb: SnpVmcb): GuestExit {
  const snp = lp.machine.snp!;
  if (!hasUsableVmsa(lp, snp, vmcb)) return exitOf(EXIT.ENTRY_FAILED_GUEST_STATE);
  const context = new SnpGuestContext(lp, snp, vmcb);
  const exit = lp.runGuest(context);
  // The host cannot move the guest on, so the processor does where the instruction is done with the exit.
  if (COMPLETED_BY_EXIT.has(exit.reason)) context.rip += BigInt(exit.instructionLengthBytes);
  context.store();
  return exit;
}

function hasUsableVmsa({ machine }: LogicalProcessor, { rmp }: Snp, { asid, vmsaAddress }: SnpVmcb): boolean {
  const entry = rmp.covering(pfnOf(vmsaAddress));
  if (!entry.assigned || entry.asid !== asid || !entry.vmsa || !entry.validated || entry.immutable)
    return false;
  const features = machine.memory.read64(vmsaAddress + VMSA.offsets.sev_features, asid);
  return (features & SEV_FEATURES.snpActive) !== 0n;
}

class SnpGuestContext implements GuestContext {
  readonly lp: LogicalProcessor;
  readonly regs: Registers = createRegisters();
  rip: bigint;
  emulated: Uint8Array | null = null;
  readonly #snp: Snp;
  readonly #vmcb: SnpVmcb;
  readonly #vmpl: number;

  constructor(lp: LogicalProcessor, snp: Snp, vmcb: SnpVmcb) {
    this.lp = lp;
    this.#snp = snp;
    this.#vmcb = vmcb;
    const saved = this.lp.machine.memory.read(vmcb.vmsaAddress, VMSA.bytes, vmcb.asid);
    const view = new DataView(saved.buffer);
    for (const [i, offset] of VMSA_REGISTER_OFFSETS.entries()) {
      this.regs.q[i] = view.getBigUint64(offset, true);
    }
    this.rip = view.getBigUint64(VMSA.offsets.rip, true);
    this.#vmpl = saved[VMSA.offsets.vmpl]!;
  }

  get address(): number {
    return this.#vmcb.vmsaAddress;
  }

  get index(): number {
    return this.#vmcb.index;
  }

  get inject(): GuestEvent | null {
    return this.#vmcb.inject;
  }

  set inject(event: GuestEvent | null) {
    this.#vmcb.inject = event;
  }

  /** Leaves the registers in the save area. */
  store(): void {
    const { memory } = this.lp.machine;
    const { vmsaAddress, asid } = this.#vmcb;
    const page = memory.read(vmsaAddress, VMSA.bytes, asid);
    const view = new DataView(page.buffer);
    for (const [i, offset] of VMSA_REGISTER_OFFSETS.entries()) {
      view.setBigUint64(offset, this.regs.q[i]!, true);
    }
    view.setBigUint64(VMSA.offsets.rip, this.rip, true);
    memory.write(vmsaAddress, page, asid);
  }

  /** `gpa` has the C-bit where the guest's page tables have it. */
  translate(gpa: number, kind: GuestAccessKind): GuestPhysical | GuestExit | GuestEvent {
    const { asid } = this.#vmcb;
    const { isPrivate, address } = this.#split(gpa);
    const mapping = this.#vmcb.nested(pfnOf(address));
    // An access to a reserved entry is not automatic: only the guest can tell the host what it wanted there.
    if (mapping === 'mmio') return { vector: VECTOR_VC, errorCode: GHCB_EXIT.NPF };
    if (mapping === null || (kind === 'write' && !mapping.writable)) {
      return this.#nestedFault(address, isPrivate, accessBits({ kind, isPrivate }));
    }
    const { pfn, isLarge } = mapping;
    const verdict = checkGuestAccess(this.#snp.rmp, {
      asid,
      vmpl: this.#vmpl,
      gpa: address,
      isPrivate,
      kind,
      pfn,
      isLargeMapping: isLarge,
    });
    if (verdict === 'not-validated') return { vector: VECTOR_VC, errorCode: VC_NOT_VALIDATED };
    if (verdict !== 'allowed') return this.#nestedFault(address, isPrivate, verdict.npf);
    return { address: pfn * PAGE_4K + offsetIn(address, PAGE_4K), keyId: isPrivate ? asid : 0 };
  }

  instruction(name: string, { q }: Registers): GuestExit | GuestEvent | 'done' {
    switch (name) {
      case 'vmgexit':
        return exitOf(EXIT.VMCALL, VMGEXIT_LENGTH);
      case 'wrmsr-ghcb':
        this.#vmcb.ghcb = q[RDX]! * TWO_32 + (q[RAX]! % TWO_32);
        return 'done';
      case 'rdmsr-ghcb':
        q[RAX] = this.#vmcb.ghcb % TWO_32;
        q[RDX] = this.#vmcb.ghcb / TWO_32;
        return 'done';
      case 'pvalidate':
        return this.#onPage((page) => pvalidate(this.#snp.rmp, page, q[RDX] === 1n));
      case 'rmpadjust':
        return this.#onPage((page) =>
          rmpAdjust(this.#snp.rmp, page, {
            targetVmpl: Number(q[RDX]! & 0xffn),
            permissions: Number((q[RDX]! >> 8n) & 0xffn),
            vmsa: ((q[RDX]! >> 16n) & 1n) === 1n,
          }),
        );
      default:
        return { vector: VECTOR_UD };
    }
  }

  intercepts({ reason }: GuestExit): boolean | GuestEvent {
    if (reason === EXIT.RDMSR && this.regs.d[2 * RCX] === SEV_STATUS_MSR) return this.#readSevStatus();
    const errorCode = NON_AUTOMATIC.get(reason);
    return errorCode === undefined || { vector: VECTOR_VC, errorCode };
  }

  /** The processor answers it itself: the guest need not believe the host about what it is. */
  #readSevStatus(): false {
    const features = this.lp.machine.memory.read64(this.address + VMSA.offsets.sev_features, this.#vmcb.asid);
    const status = SEV_STATUS_ENABLED | (features << SEV_STATUS_FEATURES_SHIFT);
    this.regs.q[RAX] = status & LOW_32;
    this.regs.q[RDX] = status >> 32n;
    return false;
  }

  /** PVALIDATE, RMPADJUST: the page at RAX of the size in RCX. EAX is the status, RCX bit 0 stands for the carry flag. */
  #onPage(
    instruction: (page: Parameters<typeof pvalidate>[1]) => GuestRmpResult,
  ): GuestExit | GuestEvent | 'done' {
    const { regs } = this;
    const { address } = this.#split(regNumber(regs, RAX));
    const pageSize = (regs.q[RCX]! & 1n) === 0n ? RMP_4K : RMP_2M;
    const mapping = this.#vmcb.nested(pfnOf(address));
    const bits = accessBits({ kind: 'read', isPrivate: true });
    if (mapping === null || mapping === 'mmio') return this.#nestedFault(address, true, bits);
    const result = instruction({
      asid: this.#vmcb.asid,
      vmpl: this.#vmpl,
      gpa: address,
      pageSize,
      pfn: mapping.pfn,
      isLargeMapping: mapping.isLarge,
    });
    if (result === 'not-validated') return { vector: VECTOR_VC, errorCode: VC_NOT_VALIDATED };
    if ('npf' in result) return this.#nestedFault(address, true, result.npf);
    regs.q[RAX] = BigInt(result.status);
    regs.q[RCX] = result.unchanged ? CARRY : 0n;
    return 'done';
  }

  #split(gpa: number): { readonly isPrivate: boolean; readonly address: number } {
    const bit = 2 ** this.#snp.cBit;
    return gpa >= bit ? { isPrivate: true, address: gpa - bit } : { isPrivate: false, address: gpa };
  }

  #nestedFault(gpa: number, isPrivate: boolean, bits: bigint): GuestExit {
    return { reason: EXIT.EPT_VIOLATION, qualification: bits, gpa, instructionLengthBytes: 0, isPrivate };
  }
}

function exitOf(reason: number, instructionLengthBytes = 0): GuestExit {
  return { reason, qualification: 0n, gpa: 0, instructionLengthBytes };
}
