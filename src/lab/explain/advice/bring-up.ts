/** Statuses of the module's own initialisation: module state, platform checks, TDMRs and PAMTs. */
import type { StatusName } from '../../../abi/status-codes.ts';
import type { StatusAdvice } from './advice.ts';

const FIRMWARE_UPDATE = 'Load the default BIOS settings, enable TDX again, and update the BIOS if it stays.';
const SAME_ON_ALL =
  'Update BIOS and microcode so that every processor has the same, and do not mix CPU steppings.';

/** Classes MODULE_STATE, PLATFORM and PHYS_MEMORY_CONFIG. @internal */
export const BRING_UP_ADVICE = {
  TDX_SYS_INIT_NOT_PENDING: {
    meaning: 'The module was initialised before; TDH.SYS.INIT works once per load.',
    recovery: 'reboot',
    cause: 'A kexec kernel, a second caller, or a retry after a failure that came later than TDH.SYS.INIT.',
    remedy:
      'Cache the outcome of the first call. Across kexec the old kernel must run TDH.SYS.DISABLE (module with ' +
      'feature bit 53); otherwise reboot.',
  },
  TDX_SYS_LP_INIT_NOT_DONE: {
    meaning: 'This logical processor has not run TDH.SYS.LP.INIT.',
    recovery: 'step',
    cause: 'A SEAMCALL ran on a processor that came online later, or before its own initialisation.',
    remedy: 'Run TDH.SYS.LP.INIT on this processor first, with interrupts or preemption off round both.',
  },
  TDX_SYS_LP_INIT_DONE: {
    meaning: 'This logical processor has run TDH.SYS.LP.INIT already.',
    recovery: 'done',
    cause: 'A processor went offline and came back: the module remembers it.',
    remedy: 'Keep a flag per processor and skip the call.',
  },
  TDX_SYS_NOT_READY: {
    meaning: 'The module is not ready yet, and the leaf is not one that works before that.',
    recovery: 'step',
    cause:
      'The order of initialisation was broken, an earlier step failed, or the module has no such leaf and only ' +
      'looked at its state: a TDX 1.0 module answers TDH.SYS.RD (leaf 0x22) this way.',
    remedy:
      'For leaf 0x22 install a TDX 1.5 module. Otherwise look for the first failing line above: every step after ' +
      'it fails like this.',
  },
  TDX_SYS_SHUTDOWN: {
    meaning: 'The module was shut down and takes no more calls.',
    recovery: 'reboot',
    cause:
      'TDH.SYS.SHUTDOWN for an update that was not completed, or the shutdown old kernels did on any failure.',
    remedy:
      'Complete the update: install a module, then SYS.INIT, SYS.LP.INIT, SYS.UPDATE. Otherwise reboot.',
  },
  TDX_SYS_KEY_CONFIG_NOT_PENDING: {
    meaning: 'The module is not waiting for the global key.',
    recovery: 'step',
    cause: 'TDH.SYS.KEY.CONFIG before TDH.SYS.CONFIG succeeded, or after the last package was done.',
    remedy: 'Run TDH.SYS.CONFIG first, then TDH.SYS.KEY.CONFIG exactly once on each package.',
  },
  TDX_SYS_STATE_INCORRECT: {
    meaning: 'TDH.SYS.UPDATE came in the wrong state.',
    recovery: 'step',
    cause:
      'SYS.INIT, or SYS.LP.INIT on some processor, had not run on the new module, or SYS.CONFIG already had.',
    remedy:
      'After the install: SYS.INIT once, SYS.LP.INIT on every processor, then SYS.UPDATE, no SYS.CONFIG.',
  },
  TDX_SYS_INVALID_HANDOFF: {
    meaning: 'The data the old module left cannot be used by the new one.',
    recovery: 'reboot',
    cause: 'The handoff version is out of the range the new module takes, or SYS.SHUTDOWN was not run.',
    remedy: 'Update by way of a release between the two, or reboot into the new module (TDs are lost).',
  },
  TDX_SYS_INCOMPATIBLE_SIGSTRUCT: {
    meaning: 'The signature structure of the module does not fit this load.',
    recovery: 'module',
    cause: 'A module built for another platform, or an update that the signature does not allow.',
    remedy: 'Install the module released for this CPU family.',
  },
  TDX_SYS_LP_INIT_NOT_PENDING: {
    meaning: 'The module is not taking processors now.',
    recovery: 'reboot',
    cause: 'TDH.SYS.LP.INIT before TDH.SYS.INIT, or after TDH.SYS.CONFIG: a processor added too late.',
    remedy: 'Bring every processor online before TDX initialises (no maxcpus=, no CPU hot-add), then reboot.',
  },
  TDX_SYS_CONFIG_NOT_PENDING: {
    meaning: 'The module does not take TDMRs now.',
    recovery: 'step',
    cause:
      'Not every logical processor that the BIOS enabled has run TDH.SYS.LP.INIT (maxcpus=, nosmt, a CPU offline), ' +
      'or TDH.SYS.CONFIG has succeeded before.',
    remedy:
      'Bring all processors online once before TDX initialises, or turn the unused ones off in the BIOS. After a ' +
      'success it cannot be repeated in this boot.',
  },
  TDX_INCOMPATIBLE_SEAM_CAPABILITIES: {
    meaning: 'The CPU lacks a SEAM capability that this module needs.',
    recovery: 'module',
    cause: 'Microcode older than the module asks for, or a module for another CPU generation.',
    remedy: 'Update BIOS and microcode, or install the module released for this CPU family.',
  },
  TDX_CRYPTO_SELF_TEST_FAILED: {
    meaning: 'The cryptography self-test of the module failed.',
    recovery: 'reboot',
    cause: 'A hardware fault, or a damaged module image.',
    remedy: 'Cold boot; when it repeats, reinstall the module image and then suspect the CPU.',
  },
  TDX_UPDATE_COMPATIBILITY_SENSITIVE: {
    meaning: 'The update was refused: TDs are at a step that the next module may not continue.',
    recovery: 'retry',
    cause:
      'TDs are being built (between TDH.MNG.INIT and TDH.MR.FINALIZE) or have an interrupted migration step.',
    remedy: 'Let the TDs finish starting or migrating, then update again.',
  },
  TDX_INCORRECT_CPUID_VALUE: {
    meaning: 'A CPUID value is not what the module requires.',
    recovery: 'firmware',
    cause:
      'A feature is off in the BIOS, or the module does not support this CPU. RCX holds leaf and subleaf, RDX and ' +
      'R8 the bits checked, R9 and R10 the values wanted.',
    remedy: `Look RCX up in the log and turn the feature on. ${FIRMWARE_UPDATE}`,
  },
  TDX_LIMIT_CPUID_MAXVAL_SET: {
    meaning: 'CPUID is limited to old leaves (IA32_MISC_ENABLE bit 22).',
    recovery: 'firmware',
    cause: 'A BIOS setting for old operating systems limits the CPUID leaves.',
    remedy: 'Turn the CPUID limit off in the BIOS.',
  },
  TDX_INCONSISTENT_CPUID_FIELD: {
    meaning: 'CPUID of this processor differs from that of the one which ran TDH.SYS.INIT.',
    recovery: 'firmware',
    cause: 'Mixed CPU steppings or microcode, or a feature disabled on some cores. RCX holds the leaf.',
    remedy: SAME_ON_ALL,
  },
  TDX_CPUID_MAX_SUBLEAVES_UNRECOGNIZED: {
    meaning: 'A CPUID leaf has more subleaves than the module knows.',
    recovery: 'module',
    cause: 'The CPU is newer than the module.',
    remedy: 'Install a newer module.',
  },
  TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED: {
    meaning: 'The topology that CPUID leaf 0x1F describes has a form the module does not know.',
    recovery: 'module',
    cause: 'A CPU newer than the module, or a BIOS or hypervisor that describes topology wrongly.',
    remedy: 'Install a newer module; do not run the TDX host inside a VM.',
  },
  TDX_INVALID_WBINVD_SCOPE: {
    meaning: 'WBINVD does not reach what the module needs it to.',
    recovery: 'firmware',
    cause: 'The firmware reports a cache write-back scope smaller than the package.',
    remedy: FIRMWARE_UPDATE,
  },
  TDX_INVALID_PKG_ID: {
    meaning: 'The package number of this processor is out of range.',
    recovery: 'firmware',
    cause: 'More than 8 packages, or APIC ids that the BIOS assigned with gaps.',
    remedy: FIRMWARE_UPDATE,
  },
  TDX_ENABLE_MONITOR_FSM_NOT_SET: {
    meaning: 'MONITOR/MWAIT is not enabled (IA32_MISC_ENABLE).',
    recovery: 'firmware',
    cause: 'The BIOS has MONITOR/MWAIT turned off.',
    remedy: 'Turn MONITOR/MWAIT on in the BIOS.',
  },
  TDX_CPUID_LEAF_NOT_SUPPORTED: {
    meaning: 'The CPU lacks a CPUID leaf that the module needs.',
    recovery: 'firmware',
    cause: 'CPUID leaves are limited by the BIOS, or the CPU is older than the module supports.',
    remedy: FIRMWARE_UPDATE,
  },
  TDX_SMRR_NOT_LOCKED: {
    meaning: 'The SMM range registers are not locked.',
    recovery: 'firmware',
    cause: 'The BIOS left an SMRR open on this processor.',
    remedy: FIRMWARE_UPDATE,
  },
  TDX_INVALID_SMRR_CONFIGURATION: {
    meaning: 'An SMM range register has a value that the module does not accept.',
    recovery: 'firmware',
    cause: 'The BIOS programmed base or mask of an SMRR wrongly.',
    remedy: FIRMWARE_UPDATE,
  },
  TDX_SMRR_OVERLAPS_CMR: {
    meaning: 'SMM memory overlaps memory that is convertible to TDX memory.',
    recovery: 'firmware',
    cause: 'The BIOS gave the same range to SMM and to a CMR.',
    remedy: FIRMWARE_UPDATE,
  },
  TDX_SMRR_LOCK_NOT_SUPPORTED: {
    meaning: 'The CPU cannot lock its SMM range registers.',
    recovery: 'module',
    cause: 'A CPU or a virtual machine without SMRR locking.',
    remedy: 'TDX hosts need the real hardware: check that this is no VM, and that the CPU supports TDX.',
  },
  TDX_SMRR_NOT_SUPPORTED: {
    meaning: 'The CPU has no SMM range registers.',
    recovery: 'module',
    cause: 'A CPU or a virtual machine without SMRR.',
    remedy: 'TDX hosts need the real hardware: check that this is no VM, and that the CPU supports TDX.',
  },
  TDX_INCONSISTENT_MSR: {
    meaning: 'An MSR of this processor differs from that of the one which ran TDH.SYS.INIT.',
    recovery: 'firmware',
    cause:
      'The BIOS set processors up differently, microcode differs, or software wrote the MSR on one processor only. ' +
      'IA32_TSC_ADJUST (0x3b): the BIOS or a kernel moved the TSC.',
    remedy: SAME_ON_ALL,
  },
  TDX_INCORRECT_MSR_VALUE: {
    meaning: 'An MSR does not hold what the module requires.',
    recovery: 'firmware',
    cause: 'A CPU capability is off in the BIOS, or the microcode is too old for this module.',
    remedy: `Find the feature that the MSR stands for and turn it on. ${FIRMWARE_UPDATE}`,
  },
  TDX_SEAMREPORT_NOT_AVAILABLE: {
    meaning: 'The CPU cannot sign TD reports.',
    recovery: 'firmware',
    cause: 'Microcode without the operation, or SGX attestation off in the BIOS.',
    remedy: 'Enable SGX and its registration in the BIOS; update BIOS and microcode.',
  },
  TDX_SEAMDB_GETREF_NOT_AVAILABLE: {
    meaning: 'The CPU lacks the operation behind reports that survive a module update.',
    recovery: 'firmware',
    cause: 'Microcode older than the module asks for.',
    remedy: 'Update BIOS and microcode.',
  },
  TDX_SEAMDB_REPORT_NOT_AVAILABLE: {
    meaning: 'The CPU cannot make reports for TDs that were started under an older module.',
    recovery: 'firmware',
    cause: 'Microcode older than the module asks for.',
    remedy: 'Update BIOS and microcode.',
  },
  TDX_SEAMVERIFYREPORT_NOT_AVAILABLE: {
    meaning: 'The CPU cannot verify reports locally.',
    recovery: 'firmware',
    cause: 'Microcode older than the module asks for.',
    remedy: 'Update BIOS and microcode.',
  },
  TDX_INVALID_TDMR: {
    meaning: 'A TDMR has a base or a size that the module does not take.',
    recovery: 'input',
    cause: 'Base and size must be multiples of 1 GiB, the size not zero, the end within the address width.',
    remedy: 'Round the memory range out to 1 GiB, and keep KeyID bits out of the base.',
  },
  TDX_NON_ORDERED_TDMR: {
    meaning: 'TDMRs overlap, or are not in ascending order.',
    recovery: 'input',
    cause: 'Two memory ranges were rounded out to the same 1 GiB, or the list was not sorted.',
    remedy: 'Start the later TDMR where the earlier one ends.',
  },
  TDX_TDMR_OUTSIDE_CMRS: {
    meaning: 'Part of a TDMR that is not reserved is not convertible memory.',
    recovery: 'input',
    cause:
      'The kernel counts memory as RAM that the BIOS put in no CMR: CXL or persistent memory onlined as RAM, ' +
      'memory hot-added before TDX initialised, a memmap= override, or BIOS and e820 that disagree.',
    remedy:
      'Compare the CMR lines with /proc/iomem. Keep such memory out of the page allocator until TDX has ' +
      'initialised (do not online dax/kmem, drop memmap=), or update the BIOS.',
  },
  TDX_TDMR_ALREADY_INITIALIZED: {
    meaning: 'Every block of the TDMR has been initialised.',
    recovery: 'done',
    cause: 'The loop called once more than needed.',
    remedy: 'Stop when RDX reaches the end of the TDMR.',
  },
  TDX_INVALID_PAMT: {
    meaning: 'A PAMT area is misaligned or too small.',
    recovery: 'input',
    cause: 'Base and size must be multiples of 4 KiB, and the size at least pages x entry size.',
    remedy:
      'Size it as pages of that level x 16 bytes, rounded up to 4 KiB; ask the module for the entry size.',
  },
  TDX_PAMT_OUTSIDE_CMRS: {
    meaning: 'A PAMT area lies in memory that is not convertible.',
    recovery: 'input',
    cause:
      'The kernel took PAMT pages from memory in no CMR: CXL, persistent or hot-added memory on that node.',
    remedy: 'Initialise TDX before such memory is onlined, or allocate the PAMT on another node.',
  },
  TDX_PAMT_OVERLAP: {
    meaning: 'A PAMT area overlaps another one, or usable memory of a TDMR.',
    recovery: 'input',
    cause: 'A PAMT that lies in a TDMR was not covered by a reserved area of it.',
    remedy: 'Reserve every PAMT area in every TDMR it touches.',
  },
  TDX_INVALID_RESERVED_IN_TDMR: {
    meaning: 'A reserved area is misaligned or leaves its TDMR.',
    recovery: 'input',
    cause: 'Offset and size must be multiples of 4 KiB, and the area must lie inside the TDMR.',
    remedy: 'Round the hole out to 4 KiB and clip it to the TDMR.',
  },
  TDX_NON_ORDERED_RESERVED_IN_TDMR: {
    meaning: 'Reserved areas overlap, are not in ascending order, or follow an empty one.',
    recovery: 'input',
    cause: 'Holes and PAMT areas were written without sorting them together.',
    remedy: 'Sort the areas by offset; unused ones (size zero) come last.',
  },
  TDX_CMR_LIST_INVALID: {
    meaning: 'The list of convertible memory that the firmware left is malformed.',
    recovery: 'firmware',
    cause: 'CMRs that overlap, are out of order or misaligned: an error of the BIOS.',
    remedy: 'Update the BIOS; check that all DIMMs are populated as the vendor describes.',
  },
} as const satisfies Partial<Record<StatusName, StatusAdvice>>;
