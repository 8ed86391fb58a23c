/** KVM_SEV_SNP_LAUNCH_FINISH: the vCPUs are measured and encrypted, and the digest is final. */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import {
  KVM_SEV_SNP_ID_AUTH_SIZE,
  KVM_SEV_SNP_ID_BLOCK_SIZE,
  KVM_SEV_SNP_LAUNCH_FINISH,
} from '../../../abi/kvm/sev.ts';
import type { Task } from '../../../kernel/process/task.ts';
import {
  SNP_COMMAND,
  SNP_LAUNCH_FINISH,
  SNP_LAUNCH_UPDATE,
  SNP_PAGE_TYPE,
} from '../../../machine/snp/firmware/commands.ts';
import { INITIAL_VMSA_GPA } from '../../../machine/snp/firmware/launch-digest.ts';
import { RMP_STATUS } from '../../../machine/snp/rmp-instructions.ts';
import { invalid, issueCommand, type SevCommand, type SevHandler } from './command.ts';
import { assignPage } from './rmp.ts';
import type { SnpGuest, SnpVcpu } from './snp-guest.ts';
import { initialVmsa } from './vmsa-state.ts';

const ID_BLOCK = 1n;
const AUTHOR_KEY = 2n;
const VCEK_DISABLED = 4n;

/** @internal */
export const launchFinish: SevHandler = async (guest, task, command) => {
  const { vm } = guest;
  if (!guest.isInitialised) {
    throw new KernelError('ENOTTY', 'snp-not-initialised', 'KVM_SEV_INIT2 has not been done');
  }
  if (guest.contextPfn === null) throw invalid('snp-not-started', 'LAUNCH_START has not been done');
  const finish = KVM_SEV_SNP_LAUNCH_FINISH.decode(
    await task.copyIn(command.data, KVM_SEV_SNP_LAUNCH_FINISH.bytes),
  );
  if (finish.flags !== 0)
    throw invalid('snp-launch-flags', 'LAUNCH_FINISH takes no flags', { flags: finish.flags });
  if (guest.isLaunched) throw invalid('snp-launch-finished', 'the launch has been finished already');
  // Nothing of user space may be left that would fault on the guest's pages.
  for (const { inode } of vm.files.open) inode.life.checkAdvance('sealed');
  for (const vcpu of guest.vcpus.values()) measureVcpu(guest, task, command, vcpu);
  const blob = await readIdBlob(task, finish);
  const pages = blob.map((bytes) => withPage(guest, task, bytes));
  try {
    const [idBlock = 0n, idAuth = 0n] = pages.map((pfn) => BigInt(pfn * PAGE_4K));
    const buffer = SNP_LAUNCH_FINISH.encode({
      gctx_paddr: BigInt(guest.contextPfn * PAGE_4K),
      id_block_paddr: idBlock,
      id_auth_paddr: idAuth,
      flags:
        (finish.id_block_en === 0 ? 0n : ID_BLOCK | (finish.auth_key_en === 0 ? 0n : AUTHOR_KEY)) |
        (finish.vcek_disabled === 0 ? 0n : VCEK_DISABLED),
      host_data: finish.host_data,
    });
    issueCommand(guest, task, command, SNP_COMMAND.LAUNCH_FINISH, buffer);
  } finally {
    for (const pfn of pages) vm.kernel.pageRefs.put(pfn);
  }
  guest.isLaunched = true;
  vm.files.advance('sealed');
};

/** A vCPU's save area becomes the guest's. One that was measured by an attempt before stays. */
function measureVcpu(guest: SnpGuest, task: Task, command: SevCommand, vcpu: SnpVcpu): void {
  if (vcpu.isProtected) return;
  const { host, asid } = guest;
  task.lp.store(vcpu.vmsaAddress, initialVmsa(vcpu.vcpu, guest.vmsaFeatures));
  const owner = { gpa: INITIAL_VMSA_GPA, asid, immutable: true };
  if (assignPage(host, task.lp, vcpu.vmsaPfn, owner) !== RMP_STATUS.SUCCESS) {
    throw new KernelError(
      'EFAULT',
      'snp-rmpupdate',
      `RMPUPDATE failed for the save area of vCPU ${vcpu.index}`,
    );
  }
  const buffer = SNP_LAUNCH_UPDATE.encode({
    gctx_paddr: BigInt(guest.contextPfn! * PAGE_4K),
    flags: SNP_PAGE_TYPE.VMSA * 2,
    address: BigInt(vcpu.vmsaAddress),
  });
  try {
    issueCommand(guest, task, command, SNP_COMMAND.LAUNCH_UPDATE, buffer);
  } catch (error) {
    host.reclaimPage(vcpu.vmsaPfn);
    throw error;
  }
  vcpu.isProtected = true;
}

/** ID block and its authentication, where user space gives them. */
async function readIdBlob(
  task: Task,
  finish: ReturnType<typeof KVM_SEV_SNP_LAUNCH_FINISH.decode>,
): Promise<readonly Uint8Array[]> {
  if (finish.id_block_en === 0) return [];
  return [
    await task.copyIn(finish.id_block_uaddr, KVM_SEV_SNP_ID_BLOCK_SIZE),
    await task.copyIn(finish.id_auth_uaddr, KVM_SEV_SNP_ID_AUTH_SIZE),
  ];
}

/** A page of the kernel with `bytes`. Throws ENOMEM. */
function withPage({ vm }: SnpGuest, task: Task, bytes: Uint8Array): number {
  const pfn = vm.kernel.pageRefs.alloc({ purpose: 'snp-id-block' });
  if (pfn === null) throw new KernelError('ENOMEM', 'snp-no-memory', 'there is no memory for the ID block');
  task.lp.store(pfn * PAGE_4K, bytes);
  return pfn;
}
