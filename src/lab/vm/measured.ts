/** The launch digest that the firmware computed of a guest. On hardware the guest gets it in an attestation report. */
import { PAGE_4K } from '../../abi/address.ts';
import type { Task } from '../../kernel/process/task.ts';
import { SnpBackend } from '../../kvm/backends/snp/snp-backend.ts';
import { VmFile } from '../../kvm/vm-file.ts';
import type { Host } from '../host.ts';

/** 96 hexadecimal digits; null for what is no SNP guest in its launch or after it. @public */
export function launchDigestOf({ machine }: Pick<Host, 'machine'>, task: Task, vmFd: number): string | null {
  const { object } = task.process.files.get(vmFd);
  const backend = object instanceof VmFile ? object.vm.backend : null;
  if (!(backend instanceof SnpBackend) || backend.guest.contextPfn === null) return null;
  const context = machine.snp?.firmware.contexts.get(backend.guest.contextPfn * PAGE_4K);
  return context === undefined ? null : Buffer.from(context.launchDigest).toString('hex');
}
