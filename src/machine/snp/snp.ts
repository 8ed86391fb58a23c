/** SEV-SNP in a machine: the table of owners, the secure processor, and the instructions of the host. */
import { PAGE_4K } from '../../abi/address.ts';
import type { SevDescription } from '../description.ts';
import { CpuException, VECTOR_GP, VECTOR_UD } from '../exceptions.ts';
import type { LogicalProcessor } from '../lp.ts';
import type { Machine } from '../machine.ts';
import { MSR } from '../platform.ts';
import { SecureProcessor } from './firmware/secure-processor.ts';
import { PAGES_PER_2M, RMP_2M, Rmp } from './rmp.ts';
import { checkHostStore } from './rmp-checks.ts';
import { psmash, type RmpState, rmpUpdate } from './rmp-instructions.ts';

/** SYSCFG bits: SNP is on, with privilege levels. @public */
export const SYSCFG_SNP_EN = 1n << 24n;
/** @public */
export const SYSCFG_SNP_VMPL_EN = 1n << 25n;

/** Bytes at the start of the RMP's memory that the processor keeps for itself, and bytes of an entry. @public */
export const RMP_BOOKKEEPING_BYTES = 0x4000;
/** @public */
export const RMP_ENTRY_BYTES = 16;

/** @public */
export class Snp {
  readonly rmp: Rmp;
  readonly firmware: SecureProcessor;
  readonly #machine: Machine;
  readonly #description: SevDescription;

  constructor(machine: Machine, description: SevDescription) {
    this.#machine = machine;
    this.#description = description;
    const { start, end } = description.rmp;
    this.rmp = new Rmp(Math.floor((end - start - RMP_BOOKKEEPING_BYTES) / RMP_ENTRY_BYTES));
    this.firmware = new SecureProcessor(machine, this);
    machine.hostAccess = (address, lengthBytes, kind) => {
      if (kind === 'store') checkHostStore(this.rmp, address, lengthBytes);
    };
  }

  /** Bit of a guest physical address that says private. */
  get cBit(): number {
    return this.#description.cBit;
  }

  /** Guests with encrypted state, SNP guests among them, have the ASIDs from 1 to below this one. */
  get minSevAsid(): number {
    return this.#description.minSevAsid;
  }

  /** Two processors share a core. */
  get hasSmt(): boolean {
    const cores = new Set(this.#machine.lps.map(({ apicId }) => Math.floor(apicId / 2)));
    return cores.size < this.#machine.lps.length;
  }

  isEnabledOn(lp: LogicalProcessor): boolean {
    return (lp.rdmsr(MSR.SYSCFG) & SYSCFG_SNP_EN) !== 0n;
  }

  /** RMPUPDATE. Returns EAX (RMP_STATUS). Throws #UD where SNP is off, #GP outside the kernel. */
  rmpUpdate(lp: LogicalProcessor, address: number, state: RmpState): number {
    this.#requireKernel(lp, 'RMPUPDATE');
    const status = rmpUpdate(this.rmp, this.#description.maxAsid + 1, address, state);
    // Caches are coherent across keys (CPUID 0x8000001F.EAX[10]): the host's lines do not outlive its page.
    const pages = state.pageSize === RMP_2M ? PAGES_PER_2M : 1;
    if (status === 0) for (let i = 0; i < pages; i++) lp.clflushPage(address + i * PAGE_4K);
    return status;
  }

  /** PSMASH. Returns EAX (RMP_STATUS). Throws as RMPUPDATE does. */
  psmash(lp: LogicalProcessor, address: number): number {
    this.#requireKernel(lp, 'PSMASH');
    return psmash(this.rmp, address);
  }

  /** Writes a page under a guest's key, past the caches. @internal */
  encryptInPlace(address: number, contents: Uint8Array, asid: number): void {
    for (const { cache } of this.#machine.packages) cache.discard(address, address + PAGE_4K);
    this.#machine.memory.write(address, contents, asid);
  }

  /** State for a saved machine. */
  save() {
    return { rmp: this.rmp.save(), firmware: this.firmware.save() };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<Snp['save']>): void {
    this.rmp.restore(saved.rmp);
    this.firmware.restore(saved.firmware);
  }

  #requireKernel(lp: LogicalProcessor, instruction: string): void {
    if (!this.isEnabledOn(lp)) throw new CpuException(VECTOR_UD, `${instruction} where SNP is off`);
    if (!lp.kernelMode) throw new CpuException(VECTOR_GP, `${instruction} outside 64-bit mode at CPL 0`);
  }
}
