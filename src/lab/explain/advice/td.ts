/** Statuses about one TD, its VCPUs, keys, secure EPT and metadata. */
import type { StatusName } from '../../../abi/status-codes.ts';
import type { StatusAdvice } from './advice.ts';

/** Classes TD_STATE, VCPU_STATE, KEY, SEPT and METADATA. @internal */
export const TD_ADVICE = {
  TDX_TD_FATAL: {
    meaning: 'The TD had a fatal error; only tearing it down still works.',
    recovery: 'td',
    cause:
      'An earlier exit of this TD carried the fatal bit: a machine check in its memory, or damaged metadata.',
    remedy: 'Destroy the TD; look for the first failing line about it.',
  },
  TDX_TD_NON_DEBUG: {
    meaning: 'The host may not read or write this TD.',
    recovery: 'td',
    cause: 'The TD was created without the DEBUG attribute.',
    remedy: 'For debugging create the TD with DEBUG set; it is visible in its attestation.',
  },
  TDX_TDCS_NOT_ALLOCATED: {
    meaning: 'The TD has too few control pages.',
    recovery: 'step',
    cause: 'TDH.MNG.ADDCX ran fewer times than TDCS_BASE_SIZE/4096, plus one per L2 VM.',
    remedy: 'Add the missing pages before TDH.MNG.INIT.',
  },
  TDX_LIFECYCLE_STATE_INCORRECT: {
    meaning: 'The TD is not at the point of its life where this leaf applies.',
    recovery: 'step',
    cause:
      'Keys configured twice, or teardown out of order: VP.FLUSH on all VCPUs, VPFLUSHDONE, PHYMEM.CACHE.WB on ' +
      'every package, KEY.FREEID, then PAGE.RECLAIM.',
    remedy: 'Follow that order. From TDH.MNG.KEY.CONFIG it means that every package has its key already.',
  },
  TDX_OP_STATE_INCORRECT: {
    meaning: 'The TD is not in an operation state that allows this leaf.',
    recovery: 'step',
    cause:
      'Pages added after TDH.MR.FINALIZE, VCPUs created before TDH.MNG.INIT, entry before FINALIZE, and so on.',
    remedy:
      'Build in order: MNG.INIT, VP.CREATE and VP.INIT, SEPT.ADD and PAGE.ADD, MR.EXTEND, MR.FINALIZE, VP.ENTER.',
  },
  TDX_NO_VCPUS: {
    meaning: 'The TD has no VCPU.',
    recovery: 'step',
    cause: 'TDH.MR.FINALIZE before the first TDH.VP.INIT.',
    remedy: 'Create and initialise the VCPUs first (KVM_TDX_INIT_VCPU before KVM_TDX_FINALIZE_VM).',
  },
  TDX_TDCX_NUM_INCORRECT: {
    meaning: 'The TD or VCPU has too few control pages for this leaf, or no room for another.',
    recovery: 'input',
    cause: 'The page counts do not follow TDCS_BASE_SIZE and TDVPS_BASE_SIZE of this module.',
    remedy: 'Read both sizes from the metadata and add size/4096 pages.',
  },
  TDX_X2APIC_ID_NOT_UNIQUE: {
    meaning: 'Two VCPUs of the TD have the same x2APIC id.',
    recovery: 'input',
    cause: 'TDH.VP.INIT got an id that another VCPU has.',
    remedy: 'Give every VCPU its own APIC id.',
  },
  TDX_INCOMPATIBLE_MRTD_CONTEXT: {
    meaning: 'The measurement of the TD was begun by a module that this one cannot continue.',
    recovery: 'td',
    cause: 'The module was updated while the TD was being built.',
    remedy: 'Destroy the TD and build it again; do not update during a build.',
  },
  TDX_VCPU_STATE_INCORRECT: {
    meaning: 'The VCPU is not in a state that allows this leaf.',
    recovery: 'step',
    cause: 'Entry before TDH.VP.INIT, initialisation twice, or a VCPU that was disabled by a triple fault.',
    remedy: 'Initialise it once before the first entry; a DISABLED VCPU cannot come back.',
  },
  TDX_VCPU_ASSOCIATED: {
    meaning: 'The VCPU is bound to another logical processor.',
    recovery: 'step',
    cause: 'It ran elsewhere last, and TDH.VP.FLUSH has not run there.',
    remedy: 'Run TDH.VP.FLUSH on the processor where it ran last, then enter it here.',
  },
  TDX_VCPU_NOT_ASSOCIATED: {
    meaning: 'The VCPU is not bound to this logical processor.',
    recovery: 'done',
    cause: 'TDH.VP.FLUSH ran on a processor that does not hold the VCPU, or twice.',
    remedy: 'Nothing when flushing; Linux tolerates it.',
  },
  TDX_NO_VALID_VE_INFO: {
    meaning: 'There is no #VE information to read.',
    recovery: 'done',
    cause: 'The guest asked without a #VE, or read it twice.',
    remedy: 'Call TDG.VP.VEINFO.GET once, first thing in the #VE handler.',
  },
  TDX_MAX_VCPUS_EXCEEDED: {
    meaning: 'The TD has as many VCPUs as its parameters allow.',
    recovery: 'input',
    cause: 'MAX_VCPUS in TD_PARAMS is lower than the number of VCPUs created.',
    remedy:
      'Raise MAX_VCPUS before TDH.MNG.INIT (in KVM: the VCPU limit of the VM, set before KVM_TDX_INIT_VM).',
  },
  TDX_TSC_ROLLBACK: {
    meaning: 'The time-stamp counter went backwards for this TD.',
    recovery: 'td',
    cause: 'The TSC was reset or is not synchronous between packages.',
    remedy: 'Check TSC synchronisation (kernel log: tsc); do not suspend a TDX host.',
  },
  TDX_INTERRUPTIBILITY_BLOCKED: {
    meaning: 'The guest is in an interruptibility state that does not allow this.',
    recovery: 'step',
    cause: 'An instruction boundary where events are blocked (STI or MOV SS).',
    remedy: 'Let the guest go on by one instruction, then repeat.',
  },
  TDX_TD_VMCS_FIELD_NOT_INITIALIZED: {
    meaning: 'A field of the VCPU was never set.',
    recovery: 'step',
    cause: 'An L2 VM is entered before its VMCS was set up.',
    remedy: 'Write the field first.',
  },
  TD_VMCS_FIELD_ERROR: {
    meaning: 'A field of the VCPU holds a value that VM entry refuses.',
    recovery: 'input',
    cause: 'A wrong value written to the VMCS of the VCPU or of an L2 VM.',
    remedy: 'Correct the field.',
  },
  TDX_KEY_GENERATION_FAILED: {
    meaning: 'The package could not make an encryption key.',
    recovery: 'retry',
    cause: 'PCONFIG drew a random key and the generator had too little entropy.',
    remedy: 'Repeat on the same package. When it persists: update microcode, suspect the CPU.',
  },
  TDX_TD_KEYS_NOT_CONFIGURED: {
    meaning: 'The key of the TD is not set up on every package.',
    recovery: 'step',
    cause: 'TDH.MNG.KEY.CONFIG has not run on each package, or the KeyID was taken from the TD again.',
    remedy: 'Run TDH.MNG.KEY.CONFIG on one processor of every package; each package needs an online CPU.',
  },
  TDX_KEY_STATE_INCORRECT: {
    meaning: 'The KeyID is not in a state that allows this.',
    recovery: 'step',
    cause: 'Keys configured or freed out of order.',
    remedy: 'Follow the order CREATE, KEY.CONFIG, then at the end VPFLUSHDONE, CACHE.WB, KEY.FREEID.',
  },
  TDX_KEY_CONFIGURED: {
    meaning: 'This package has the key already.',
    recovery: 'done',
    cause: 'The leaf ran twice on one package, so another package may have been left out.',
    remedy: 'Choose exactly one processor per package, and check that each package was visited.',
  },
  TDX_WBCACHE_NOT_COMPLETE: {
    meaning: 'The caches still hold lines of this KeyID on some package.',
    recovery: 'step',
    cause: 'TDH.PHYMEM.CACHE.WB has not finished on every package since TDH.MNG.VPFLUSHDONE.',
    remedy: 'Run TDH.PHYMEM.CACHE.WB to its end on each package, then free the KeyID.',
  },
  TDX_HKID_NOT_FREE: {
    meaning: 'The KeyID belongs to a TD, or is being freed.',
    recovery: 'input',
    cause: 'The KeyID allocator gave out a KeyID twice, or before TDH.MNG.KEY.FREEID.',
    remedy: 'Free the KeyID completely before it is given out again; otherwise take another.',
  },
  TDX_NO_HKID_READY_TO_WBCACHE: {
    meaning: 'No KeyID waits for a cache write-back on this package.',
    recovery: 'done',
    cause: 'Another TD that ended at the same time had the caches written back for both.',
    remedy: 'Nothing: go on to TDH.MNG.KEY.FREEID.',
  },
  TDX_WBCACHE_RESUME_ERROR: {
    meaning: 'There is no interrupted cache write-back to resume.',
    recovery: 'input',
    cause: 'TDH.PHYMEM.CACHE.WB with RCX=1 without an interrupted call on this package before it.',
    remedy: 'Start with RCX=0.',
  },
  TDX_FLUSHVP_NOT_DONE: {
    meaning: 'VCPUs of the TD are still bound to logical processors.',
    recovery: 'step',
    cause: 'TDH.VP.FLUSH did not run for every VCPU that ever ran; with CPUs offline it may be out of reach.',
    remedy: 'Flush each VCPU on the processor where it ran last, then repeat TDH.MNG.VPFLUSHDONE.',
  },
  TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED: {
    meaning: 'The BIOS activated more KeyIDs than the module handles.',
    recovery: 'firmware',
    cause: 'MSR 0x87 splits the KeyIDs so that private ones reach above the limit of the module.',
    remedy: 'Lower the number of KeyIDs in the BIOS (TME-MT/TDX key split).',
  },
  TDX_EPT_WALK_FAILED: {
    meaning: 'The secure EPT has no entry at the level asked for.',
    recovery: 'step',
    cause:
      'A secure EPT page above is missing, or a large page is mapped there. RCX and RDX hold entry and level.',
    remedy: 'Add the missing secure EPT pages with TDH.MEM.SEPT.ADD, from the top down.',
  },
  TDX_EPT_ENTRY_FREE: {
    meaning: 'The secure EPT entry is free.',
    recovery: 'step',
    cause: 'Nothing is mapped at this guest address.',
    remedy: 'Map the page first.',
  },
  TDX_EPT_ENTRY_NOT_FREE: {
    meaning: 'The secure EPT entry is in use.',
    recovery: 'done',
    cause:
      'The page or secure EPT page is mapped already, often by another VCPU that faulted at the same time.',
    remedy: 'Take the page offered back and go on.',
  },
  TDX_EPT_ENTRY_NOT_PRESENT: {
    meaning: 'No page is mapped at this guest address.',
    recovery: 'step',
    cause: 'The page was not added, is still pending, or was removed.',
    remedy: 'Add the page first.',
  },
  TDX_EPT_ENTRY_NOT_LEAF: {
    meaning: 'The entry points to a secure EPT page, not to memory.',
    recovery: 'input',
    cause: 'The level is too high for the page size mapped there.',
    remedy: 'Use the level of the mapping.',
  },
  TDX_EPT_ENTRY_LEAF: {
    meaning: 'The entry maps memory where a secure EPT page was expected.',
    recovery: 'input',
    cause: 'A large page is mapped there.',
    remedy: 'Split it with TDH.MEM.PAGE.DEMOTE first.',
  },
  TDX_GPA_RANGE_NOT_BLOCKED: {
    meaning: 'The page must be blocked before it is removed or changed.',
    recovery: 'step',
    cause: 'TDH.MEM.RANGE.BLOCK was left out.',
    remedy: 'Run TDH.MEM.RANGE.BLOCK, TDH.MEM.TRACK, let all VCPUs leave, then repeat.',
  },
  TDX_GPA_RANGE_ALREADY_BLOCKED: {
    meaning: 'The range is blocked already.',
    recovery: 'done',
    cause: 'It was blocked before.',
    remedy: 'Go on with TDH.MEM.TRACK.',
  },
  TDX_TLB_TRACKING_NOT_DONE: {
    meaning: 'VCPUs may still hold translations of the page.',
    recovery: 'step',
    cause: 'TDH.MEM.TRACK has not run since the block, or a VCPU has not left the TD since.',
    remedy: 'Run TDH.MEM.TRACK, force every VCPU out once, then repeat.',
  },
  TDX_EPT_INVALID_PROMOTE_CONDITIONS: {
    meaning: 'The 512 small pages cannot become one large page.',
    recovery: 'input',
    cause: 'They are not contiguous and aligned in memory, or differ in state or attributes.',
    remedy: 'Leave them small.',
  },
  TDX_PAGE_ALREADY_ACCEPTED: {
    meaning: 'The guest has accepted this page before.',
    recovery: 'done',
    cause: 'The page was in the initial image, or was accepted twice.',
    remedy: 'Nothing; a guest should wonder when it did not expect this.',
  },
  TDX_PAGE_SIZE_MISMATCH: {
    meaning: 'The guest accepted a page at a size other than the mapped one.',
    recovery: 'input',
    cause: 'The host maps 4 KiB where the guest accepts 2 MiB; Linux maps TD memory in 4 KiB pages.',
    remedy: 'The guest repeats the acceptance at the smaller size.',
  },
  TDX_GPA_RANGE_BLOCKED: {
    meaning: 'The range is blocked, so this cannot be done now.',
    recovery: 'step',
    cause: 'A removal or a change of this range is under way.',
    remedy: 'Finish it, or undo it with TDH.MEM.RANGE.UNBLOCK.',
  },
  TDX_EPT_ENTRY_STATE_INCORRECT: {
    meaning: 'The secure EPT entry is in a state that this leaf does not work on.',
    recovery: 'step',
    cause:
      'A page added twice, removed without being blocked, or a race between two VCPUs on one page. RCX holds the ' +
      'entry; RDX its level in bits 2:0 and its state in bits 15:8.',
    remedy:
      'Decode RDX: free (0) must be mapped, mapped (4) must be blocked, pending (2) must be accepted first.',
  },
  TDX_EPT_PAGE_NOT_FREE: {
    meaning: 'The secure EPT page still has entries in use.',
    recovery: 'step',
    cause: 'TDH.MEM.SEPT.REMOVE before everything below was removed.',
    remedy: 'Remove the pages below first.',
  },
  TDX_METADATA_FIELD_ID_INCORRECT: {
    meaning: 'The module has no such metadata field.',
    recovery: 'module',
    cause:
      'The field came with a later release, or the identifier is wrong. Reading one that the module lacks fails ' +
      'the whole initialisation of a kernel that takes it as mandatory.',
    remedy: 'Update the module, or read the field only when the feature bit that brings it is set.',
  },
  TDX_METADATA_FIELD_NOT_WRITABLE: {
    meaning: 'The field cannot be written.',
    recovery: 'input',
    cause: 'The host may not write it, or only for a debug TD.',
    remedy: 'Set it through TD_PARAMS at creation where that exists.',
  },
  TDX_METADATA_FIELD_NOT_READABLE: {
    meaning: 'The field cannot be read by the caller.',
    recovery: 'input',
    cause: 'The field is secret from the host, or only readable for a debug TD.',
    remedy: 'Do without it, or create the TD with DEBUG set.',
  },
  TDX_METADATA_FIELD_VALUE_NOT_VALID: {
    meaning: 'The value written is not one the field takes.',
    recovery: 'input',
    cause: 'Reserved bits set, or a value that another field forbids.',
    remedy: 'Correct the value.',
  },
  TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT: {
    meaning: 'The identifier of the first field was returned; no value was read.',
    recovery: 'done',
    cause: 'The caller passed all ones to start an iteration over the fields.',
    remedy: 'Read the field that RDX names, then follow the next identifiers.',
  },
  TDX_METADATA_FIELD_SKIP: {
    meaning: 'The field does not apply here and is passed over.',
    recovery: 'done',
    cause: 'An iteration met a field that this configuration does not have.',
    remedy: 'Go on with the next identifier.',
  },
} as const satisfies Partial<Record<StatusName, StatusAdvice>>;
