/** Kernels, firmware and hypervisors broken on purpose: what each forgets, and who must notice. */

import { TDH } from '../../../src/abi/leaves.ts';
import { RAX } from '../../../src/abi/registers.ts';
import type { PkvmHypervisor } from '../../../src/hypervisor/pkvm-hypervisor.ts';
import { PkvmBackend } from '../../../src/kvm/backends/pkvm/pkvm-backend.ts';
import { GuestMemfdFile } from '../../../src/kvm/guest-memfd/file.ts';
import type { Memfile } from '../../../src/kvm/memfile/memfile.ts';
import { SCRATCH } from './guest-script.ts';
import type { Kind } from './ledger.ts';
import type { Program } from './program.ts';
import type { Race, Sabotage } from './race.ts';
import { SUBJECTS, type Subject } from './subjects.ts';

export interface Mutation {
  readonly name: string;
  readonly subject: Subject;
  readonly sabotage: Sabotage;
  /** The program that shows it; any other seldom does. */
  readonly program?: Program;
  /** Which invariant, or which of the checks of races, may be the first to fail. */
  readonly noticedBy: RegExp;
}

const FORGOTTEN = async (): Promise<void> => undefined;

/** Faults map pages that were looked up before an invalidation. */
const forgetSequence: Sabotage = ({ kernelVm }) => {
  kernelVm.invalidations.isStale = () => false;
};

const forgetFlush: Sabotage = ({ kernelVm }) => {
  kernelVm.flushTlbs = FORGOTTEN;
};

/** Zaps leave the private pages that the guest maps. */
const forgetZap: Sabotage = ({ kernelVm: { backend } }) => {
  const zap = backend.zap.bind(backend);
  backend.zap = (start, end, what) =>
    what === 'private' ? FORGOTTEN() : zap(start, end, what === 'both' ? 'shared' : what);
};

/** User pages go without KVM being told. */
const forgetNotifier: Sabotage = ({ kernelVm }) => {
  kernelVm.hostMemory.invalidateStart = FORGOTTEN;
  kernelVm.hostMemory.invalidateEnd = () => undefined;
};

/** Pages go back without their technology being asked. */
const forgetReclaim: Sabotage = (race) => {
  inodeOf(race).technology.reclaim = FORGOTTEN;
};

/** Private pages are mapped without having been assigned. */
const forgetAssignment: Sabotage = (race) => {
  inodeOf(race).technology.prepare = FORGOTTEN;
};

/** The tracking of TLBs is skipped, with success. */
const forgetTrack: Sabotage = ({ host: { machine } }) => {
  machine.seam.fault = (lp) => ((lp.regs.d[2 * RAX]! & 0xffff) === TDH.memTrack ? 0n : undefined);
};

/** Conversions to private do not ask who else refers to a page. */
const forgetReferences: Sabotage = (race) => {
  const inode = inodeOf(race);
  const runs = inode.runs.bind(inode);
  inode.runs = (start, end) => (inode.isPrivate(start) ? runs(start, end) : []);
};

/** Conversions leave what user space maps, and do not ask for references, which would give that away. */
const forgetUnmap: Sabotage = (race) => {
  forgetReferences(race);
  inodeOf(race).mapping.unmap = FORGOTTEN;
};

/** Pages of guests come back as they were. */
const forgetWipe: Sabotage = ({ host: { machine } }) => {
  (machine.hypervisor as PkvmHypervisor).ownership.wipe = () => undefined;
};

/** A guest takes a page back whatever became of it since KVM agreed. */
const forgetConfirmation: Sabotage = ({ kernelVm: { backend } }) => {
  if (!(backend instanceof PkvmBackend)) throw new Error('not a VM of pKVM');
  for (const vcpu of backend.pkvm.vcpus)
    Object.defineProperty(vcpu, 'unshares', { get: () => null, set() {} });
};

/** Who uses the file does not hear of its changes. */
const forgetNotifiers: Sabotage = ({ task, slot }) => {
  (task.process.files.get(slot.fd!).object as Memfile).notifiers.clear();
};

function inodeOf({ task, slot }: Race) {
  const { object } = task.process.files.get(slot.fd!);
  if (!(object instanceof GuestMemfdFile)) throw new Error('not a guest_memfd');
  return object.inode;
}

const { plain, swProtected, swProtectedInPlace, memfile, tdx, tdxInPlace, snp, snpInPlace, pkvm } = SUBJECTS;
/** A mapping that should not be there any more is noticed by what it disagrees with first. */
const STALE = /mappings(Have|Lead|Lie)|reachedPages|freePages|rmpAgrees/;

const row = (
  name: string,
  subject: Subject,
  sabotage: Sabotage,
  noticedBy: RegExp,
  program?: Program,
): Mutation => ({
  name: `${subject.name}: ${name}`,
  subject,
  sabotage,
  noticedBy,
  ...(program && { program }),
});

const convert = (toPrivate: boolean) => ({ do: 'convert', page: SCRATCH, pages: 1, toPrivate }) as const;
const write = (kind: Kind) => ({ do: 'write', page: SCRATCH, kind }) as const;

/** A device has a page pinned that the guest takes back. */
const TAKEN_BACK_FROM_DEVICE: Program = {
  guests: [[convert(false), write('shared'), convert(true), write('private')]],
  hosts: [
    [
      { do: 'dma', page: SCRATCH },
      { do: 'dma', page: SCRATCH },
    ],
  ],
  budget: 4,
  discards: false,
};
/** User space makes a page shared while the guest takes it back. */
const TAKEN_BACK_FROM_USER: Program = {
  guests: [[write('private'), convert(false), convert(true), write('private')]],
  hosts: [[convert(false), convert(false)]],
  budget: 4,
  discards: false,
};

export const MUTATIONS: readonly Mutation[] = [
  row('no TLB flush', plain, forgetFlush, /tlbsFollowTables/),
  row('no MMU notifier', plain, forgetNotifier, STALE),
  row('no TLB flush', swProtected, forgetFlush, /tlbsFollowTables/),
  row('no invalidation sequence', swProtected, forgetSequence, STALE),
  row('no zap', swProtected, forgetZap, STALE),
  row('no unmapping of user space', swProtectedInPlace, forgetUnmap, /userSpaceMapsNoPrivatePage/),
  row(
    'no check of references',
    swProtectedInPlace,
    forgetReferences,
    /devicesPinNoPrivatePage/,
    TAKEN_BACK_FROM_DEVICE,
  ),
  row('no notifier', memfile, forgetNotifiers, STALE),
  row('no TRACK', tdx, forgetTrack, /noVmBreaks.*TLB_TRACKING_NOT_DONE/),
  row('no invalidation sequence', tdx, forgetSequence, STALE),
  row('no zap', tdx, forgetZap, STALE),
  row('no unmapping of user space', tdxInPlace, forgetUnmap, /userSpaceMapsNoPrivatePage/),
  row(
    'no check of references',
    tdxInPlace,
    forgetReferences,
    /devicesPinNoPrivatePage/,
    TAKEN_BACK_FROM_DEVICE,
  ),
  row('no reclaim from the RMP', snp, forgetReclaim, /freePagesAreTheHosts/),
  row('no assignment in the RMP', snp, forgetAssignment, /rmpAgreesWithNestedTables/),
  row('no invalidation sequence', snp, forgetSequence, STALE),
  row('no zap', snp, forgetZap, STALE),
  row('no unmapping of user space', snpInPlace, forgetUnmap, /userSpaceMapsNoPrivatePage/),
  row('no wipe', pkvm, forgetWipe, /(kernelReads|userSpaceSees)NoSecret/),
  row('no invalidation sequence', pkvm, forgetSequence, STALE),
  row('no unmapping of user space', pkvm, forgetUnmap, /userSpaceMapsNoPrivatePage/),
  row(
    'no confirmation of a page taken back',
    pkvm,
    forgetConfirmation,
    /mappingsHaveTheAttribute/,
    TAKEN_BACK_FROM_USER,
  ),
];
