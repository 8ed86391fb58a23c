/** KVM_SEV_SNP_LAUNCH_UPDATE: initial contents of guest memory, copied in, measured and encrypted page by page. */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { KVM_SEV_SNP_LAUNCH_UPDATE, KVM_SEV_SNP_PAGE_TYPE } from '../../../abi/kvm/sev.ts';
import type { Task } from '../../../kernel/process/task.ts';
import { SEV_STATUS, SNP_COMMAND, SNP_LAUNCH_UPDATE } from '../../../machine/snp/firmware/commands.ts';
import { RMP_STATUS } from '../../../machine/snp/rmp-instructions.ts';
import { isPrivateFrame } from '../../fault.ts';
import { GuestMemfdFile } from '../../guest-memfd/file.ts';
import type { Memslot } from '../../memslots.ts';
import { invalid, issueCommand, type SevCommand, type SevHandler } from './command.ts';
import { assignPage } from './rmp.ts';
import type { SnpGuest } from './snp-guest.ts';

const PAGE = BigInt(PAGE_4K);
const TYPES: ReadonlySet<number> = new Set(Object.values(KVM_SEV_SNP_PAGE_TYPE));

/** @internal */
export const launchUpdate: SevHandler = async (guest, task, command) => {
  const { vm } = guest;
  if (guest.contextPfn === null) throw invalid('snp-not-started', 'LAUNCH_START has not been done');
  const update = KVM_SEV_SNP_LAUNCH_UPDATE.decode(
    await task.copyIn(command.data, KVM_SEV_SNP_LAUNCH_UPDATE.bytes),
  );
  const { gfn_start, len, type, flags, uaddr } = update;
  if (len % PAGE !== 0n || flags !== 0 || !TYPES.has(type)) {
    throw invalid(
      'snp-launch-update',
      'the length is not whole pages, there are flags, or the type is none',
      {
        length: len,
        flags,
        type,
      },
    );
  }
  await vm.slotsLock.run(async () => {
    const gfn = Number(gfn_start);
    const slot = vm.slots.find(gfn);
    const file = slot?.backing;
    if (slot === undefined || !(file instanceof GuestMemfdFile)) {
      throw invalid('snp-no-private-slot', 'no slot with a guest_memfd has the first page', { gfn });
    }
    const pages = Math.min(Number(len / PAGE), slot.baseGfn + slot.pages - gfn);
    const source = type === KVM_SEV_SNP_PAGE_TYPE.ZERO ? null : uaddr;
    const done = BigInt(await populate(guest, task, command, { slot, file, gfn, pages, source, type }));
    const left = {
      ...update,
      gfn_start: gfn_start + done,
      len: len - done * PAGE,
      uaddr: source === null ? uaddr : uaddr + done * PAGE,
    };
    await task.copyOut(command.data, KVM_SEV_SNP_LAUNCH_UPDATE.encode(left));
  });
};

interface Population {
  readonly slot: Memslot;
  readonly file: GuestMemfdFile;
  readonly gfn: number;
  readonly pages: number;
  /** Where the contents are in user space; null for pages of zeroes. */
  readonly source: bigint | null;
  readonly type: number;
}

/** Number of pages done. Throws EIO when already the first fails. */
async function populate(
  guest: SnpGuest,
  task: Task,
  command: SevCommand,
  { slot, file, gfn, pages, source, type }: Population,
): Promise<number> {
  for (let done = 0; done < pages; done++) {
    const at = gfn + done;
    const from = source === null ? null : source + BigInt(done) * PAGE;
    try {
      task.checkSignal();
      if (!isPrivateFrame(guest.vm, slot, at)) {
        throw invalid('snp-page-shared', `guest frame ${at} is not private`, { gfn: at });
      }
      await file.populate(slot, at, task.lp.node, (pfn) =>
        addPage(guest, task, command, at, pfn, from, type),
      );
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      if (done > 0) return done;
      const { errno, reason } = error;
      throw new KernelError('EIO', reason.code, `page ${at} was not taken in: ${reason.text}`, {
        ...reason.data,
        cause: errno,
      });
    }
  }
  return pages;
}

async function addPage(
  guest: SnpGuest,
  task: Task,
  command: SevCommand,
  gfn: number,
  pfn: number,
  source: bigint | null,
  type: number,
): Promise<void> {
  const { host, asid } = guest;
  const address = pfn * PAGE_4K;
  if (host.snp.rmp.isAssigned(pfn)) {
    throw new KernelError('EEXIST', 'snp-page-assigned', `guest frame ${gfn} has its contents already`, {
      gfn,
    });
  }
  if (source !== null) task.lp.store(address, await task.copyIn(source, PAGE_4K));
  const owner = { gpa: gfn * PAGE_4K, asid, immutable: true };
  if (assignPage(host, task.lp, pfn, owner) !== RMP_STATUS.SUCCESS) {
    throw new KernelError('EFAULT', 'snp-rmpupdate', `RMPUPDATE failed for guest frame ${gfn}`, { gfn, pfn });
  }
  const buffer = SNP_LAUNCH_UPDATE.encode({
    gctx_paddr: BigInt(guest.contextPfn! * PAGE_4K),
    flags: type * 2,
    address: BigInt(address),
  });
  try {
    issueCommand(guest, task, command, SNP_COMMAND.LAUNCH_UPDATE, buffer);
  } catch (error) {
    const isReclaimed = host.reclaimPage(pfn);
    const isCorrected = type === KVM_SEV_SNP_PAGE_TYPE.CPUID && command.error === SEV_STATUS.INVALID_PARAM;
    // The firmware has left in the page what it would have accepted.
    if (isReclaimed && isCorrected) await task.copyOut(source!, task.lp.load(address, PAGE_4K));
    throw error;
  }
}
