/** What all SNP guests of a host share: the way to the secure processor, firmware pages, ASIDs. */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import { MiscResource } from '../../../kernel/misc-cgroup.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';
import {
  SEV_STATUS,
  SNP_COMMAND,
  SNP_PAGE_RECLAIM,
  sevStatusName,
} from '../../../machine/snp/firmware/commands.ts';
import { RMP_STATUS } from '../../../machine/snp/rmp-instructions.ts';
import type { Snp } from '../../../machine/snp/snp.ts';
import { AsidPool } from './asid-pool.ts';
import { assignPage, sharePages } from './rmp.ts';

/** DebugSwap, a bit of a VMSA's features and of CPUID 0x8000001F.EAX. */
const FEATURE_DEBUG_SWAP = 1n << 5n;
const CPUID_SEV = 0x8000_001f;
const CPUID_DEBUG_SWAP = 1 << 14;

/** @public */
export class SnpHost {
  readonly kernel: HostKernel;
  readonly snp: Snp;
  readonly asids: AsidPool;
  /** The misc controller's resource "sev_es": one per ASID. */
  readonly asidResource = new MiscResource();
  /** Bits of `sev_features` that user space may ask for. */
  readonly vmsaFeatures: bigint;
  /** Pages that could not be made the host's again and are lost. */
  leakedPages = 0;
  readonly #commandPfn: number;

  /** `commandPfn` is the page of command buffers. */
  constructor(kernel: HostKernel, snp: Snp, commandPfn: number) {
    this.kernel = kernel;
    this.snp = snp;
    this.#commandPfn = commandPfn;
    const [features] = this.lp.cpuid(CPUID_SEV);
    this.vmsaFeatures = (features & CPUID_DEBUG_SWAP) === 0 ? 0n : FEATURE_DEBUG_SWAP;
    this.asids = new AsidPool(1, snp.minSevAsid, () => this.#flush());
    this.asidResource.capacity = this.asids.capacity;
  }

  /** A processor for what no thread asks for. */
  get lp(): LogicalProcessor {
    return this.kernel.cpus[0]!.lp;
  }

  /** Has the firmware carry out a command with `buffer`. Returns its status. */
  command(command: number, buffer: Uint8Array): number {
    const address = this.#commandPfn * PAGE_4K;
    this.lp.store(address, buffer);
    const status = this.snp.firmware.command(command, address);
    if (status !== SEV_STATUS.SUCCESS) {
      this.kernel.log.debug(`ccp: SEV command 0x${command.toString(16)}: ${sevStatusName(status)}`);
    }
    return status;
  }

  /** A zeroed page that the firmware may write. Throws ENOMEM, or EIO where it cannot be handed over. */
  allocFirmwarePage(purpose: string): number {
    const pfn = this.kernel.pageRefs.alloc({ purpose });
    if (pfn === null) throw new KernelError('ENOMEM', 'snp-no-memory', `there is no memory for ${purpose}`);
    const owner = { gpa: 0, asid: 0, immutable: true };
    if (assignPage(this, this.lp, pfn, owner) === RMP_STATUS.SUCCESS) return pfn;
    this.kernel.pageRefs.put(pfn);
    throw new KernelError('EIO', 'snp-firmware-page', 'a page could not be handed to the firmware', { pfn });
  }

  /** Takes a firmware page back and frees it; one that cannot be taken back is lost. */
  freeFirmwarePage(pfn: number): void {
    if (this.reclaimPage(pfn)) this.kernel.pageRefs.put(pfn);
  }

  /** Makes a page the host's that the firmware holds, for itself or for a launch. False: it is lost. */
  reclaimPage(pfn: number): boolean {
    const paddr = BigInt(pfn * PAGE_4K);
    const status = this.command(SNP_COMMAND.PAGE_RECLAIM, SNP_PAGE_RECLAIM.encode({ paddr }));
    if (status !== SEV_STATUS.SUCCESS) {
      this.leakedPages++;
      return false;
    }
    return sharePages(this, this.lp, pfn, 1);
  }

  #flush(): boolean {
    for (const { lp } of this.kernel.cpus) lp.wbinvd();
    return this.command(SNP_COMMAND.DF_FLUSH, new Uint8Array(8)) === SEV_STATUS.SUCCESS;
  }
}
