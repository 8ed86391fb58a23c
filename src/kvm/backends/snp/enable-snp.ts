/** Turns SNP on when KVM loads: the RMP, every processor, the firmware, and /dev/sev for user space. */
import { hex, PAGE_4K } from '../../../abi/address.ts';
import { KernelError, type Reason } from '../../../abi/errno.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import type { FileObject } from '../../../kernel/process/file-object.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';
import { MSR } from '../../../machine/platform.ts';
import {
  SEV_STATUS,
  SNP_API,
  SNP_COMMAND,
  SNP_INIT_EX,
  sevStatusName,
} from '../../../machine/snp/firmware/commands.ts';
import {
  RMP_BOOKKEEPING_BYTES,
  RMP_ENTRY_BYTES,
  SYSCFG_SNP_EN,
  SYSCFG_SNP_VMPL_EN,
} from '../../../machine/snp/snp.ts';
import { SnpHost } from './snp-host.ts';

const CPUID_SEV = 0x8000_001f;
const CPUID_SNP = 1 << 4;
const INIT_RMP = 1;

/** Where user space opens the secure processor. @public */
export const SEV_DEVICE = '/dev/sev';

/** The host's SNP, or why it has none. @internal */
export function enableSnp(kernel: HostKernel): SnpHost | Reason {
  const { snp } = kernel.machine;
  const [cpu] = kernel.cpus;
  if (snp === null || cpu === undefined || (cpu.lp.cpuid(CPUID_SEV)[0] & CPUID_SNP) === 0) {
    return reason('snp-absent', 'the processor has no SEV-SNP, or the BIOS has not enabled it');
  }
  const start = Number(cpu.lp.rdmsr(MSR.RMP_BASE));
  const end = Number(cpu.lp.rdmsr(MSR.RMP_END)) + 1;
  const memoryEnd = Math.max(...kernel.machine.presentMemory.map((range) => range.end));
  const needed = (memoryEnd / PAGE_4K) * RMP_ENTRY_BYTES + RMP_BOOKKEEPING_BYTES;
  if (end - start < needed) {
    return reason('rmp-too-small', 'the memory that the BIOS reserved for the RMP does not cover all RAM', {
      needed,
      got: end - start,
    });
  }
  kernel.log.info(`SEV-SNP: RMP table physical range [${hex(start)} - ${hex(end - 1)}]`);
  const commandPfn = kernel.pageRefs.alloc({ purpose: 'sev-command-buffer' });
  if (commandPfn === null) return reason('snp-no-memory', 'there is no memory for the command buffer');
  for (const { lp } of kernel.cpus) enableOn(lp);
  // Processors that come later execute RMPUPDATE like the others.
  kernel.machine.onAcpiEvent((event) => {
    if (event.type === 'cpu-add') enableOn(event.lp);
  });
  const host = new SnpHost(kernel, snp, commandPfn);
  const status = host.command(SNP_COMMAND.INIT_EX, SNP_INIT_EX.encode({ flags: INIT_RMP }));
  if (status !== SEV_STATUS.SUCCESS) {
    kernel.pageRefs.put(commandPfn);
    return reason('snp-init', `SNP_INIT_EX: ${sevStatusName(status)}`, { status });
  }
  kernel.log.info(`ccp: SEV-SNP API:${SNP_API.major}.${SNP_API.minor} build:0`);
  kernel.log.info(`kvm_amd: SEV-ES and SEV-SNP supported: ${host.asids.capacity} ASIDs`);
  kernel.devices.register(SEV_DEVICE, () => new SevDevice(kernel.nextInode()));
  return host;
}

function enableOn(lp: LogicalProcessor): void {
  lp.wrmsr(MSR.SYSCFG, lp.rdmsr(MSR.SYSCFG) | SYSCFG_SNP_EN | SYSCFG_SNP_VMPL_EN);
}

/** /dev/sev: what a VMM opens to prove that it may use the secure processor. */
class SevDevice implements FileObject {
  readonly kind = 'sev';
  readonly #inode: number;

  constructor(inode: number) {
    this.#inode = inode;
  }

  stat() {
    return { inode: this.#inode, sizeBytes: 0, blockSizeBytes: PAGE_4K, blocks: 0, links: 1 };
  }

  async release(): Promise<void> {}
}

/** Throws EBADF unless `kind` is that of an open /dev/sev. @internal */
export function checkSevDevice(kind: string): void {
  if (kind !== 'sev') throw new KernelError('EBADF', 'sev-fd', `sev_fd is not ${SEV_DEVICE}`, { kind });
}

function reason(code: string, text: string, data: Record<string, unknown> = {}): Reason {
  return { code, text, data };
}
