/**
 * What each technology lets be done with a guest_memfd, by state. Host faults are permitted as far as pages are shared;
 * that rule is the file's, not the technology's.
 */
import type { FileAction, FilePermits, FileRules } from './file-technology.ts';

const HOST: readonly FileAction[] = ['mmap', 'host-fault', 'allocate', 'punch', 'bind', 'unbind'];
const CONVERT: readonly FileAction[] = ['convert-to-private', 'convert-to-shared'];
/** Keys or stage 2 are gone: what is left can only be thrown away. */
const CLEAR_AWAY: readonly FileAction[] = ['punch', 'unbind'];

/** A guest that may run as soon as it has memory; nothing is measured. */
function unmeasured(...more: readonly FileAction[]): FilePermits {
  const before = new Set([...HOST, ...more]);
  const running = new Set<FileAction>([...before, 'guest-fault']);
  return {
    created: before,
    bound: running,
    populating: running,
    sealed: running,
    live: running,
    dead: new Set(CLEAR_AWAY),
  };
}

/** Initial contents are handed over and measured while populating; the guest has no page of its own before the end. */
function measured(): FilePermits {
  const before = new Set([...HOST, ...CONVERT]);
  const running = new Set<FileAction>([...before, 'guest-fault']);
  return {
    created: before,
    bound: before,
    populating: new Set<FileAction>([...before, 'populate']),
    sealed: running,
    live: running,
    dead: new Set(CLEAR_AWAY),
  };
}

/** KVM_X86_DEFAULT_VM. @public */
export const PLAIN_FILE: FileRules = {
  name: 'plain',
  hasPrivateMemory: false,
  allowsInitShared: true,
  supportsInPlace: false,
  sealsUnmapped: false,
  permits: unmeasured(),
};

/** KVM_X86_SW_PROTECTED_VM: private by KVM's promise only. @public */
export const SW_PROTECTED_FILE: FileRules = {
  name: 'sw-protected',
  hasPrivateMemory: true,
  allowsInitShared: false,
  supportsInPlace: true,
  sealsUnmapped: false,
  permits: unmeasured(...CONVERT),
};

/** Population is TDH.MEM.PAGE.ADD, from KVM_TDX_INIT_MEM_REGION to KVM_TDX_FINALIZE_VM. @public */
export const TDX_FILE: FileRules = {
  name: 'tdx',
  hasPrivateMemory: true,
  allowsInitShared: false,
  supportsInPlace: true,
  sealsUnmapped: false,
  permits: measured(),
};

/**
 * Population is SNP_LAUNCH_UPDATE, between LAUNCH_START and LAUNCH_FINISH. Host and guest have one physical address
 * space, so a user mapping left over would fault on every store: there may be none when the launch completes. @public
 */
export const SNP_FILE: FileRules = {
  name: 'snp',
  hasPrivateMemory: true,
  allowsInitShared: false,
  supportsInPlace: true,
  sealsUnmapped: true,
  permits: measured(),
};

/** Donation and sharing change who owns a page, in place and at any time; nothing is measured. @public */
export const PKVM_FILE: FileRules = {
  name: 'pkvm',
  hasPrivateMemory: true,
  allowsInitShared: false,
  supportsInPlace: true,
  sealsUnmapped: false,
  permits: unmeasured(...CONVERT),
};
