/** Statuses any leaf may give: general, operands, busy resources, page metadata. */
import type { StatusName } from '../../../abi/status-codes.ts';
import type { StatusAdvice } from './advice.ts';

/** Classes GENERAL, OPERAND, RESOURCE_BUSY, PAGE_METADATA and DEPENDENT_RESOURCES. @internal */
export const CALL_ADVICE = {
  TDX_SUCCESS: {
    meaning: 'The leaf did its work.',
    recovery: 'done',
    cause: 'Nothing went wrong. From TDH.VP.ENTER the low bits hold the exit reason of the TD.',
    remedy: 'Nothing.',
  },
  TDX_NON_RECOVERABLE_VCPU: {
    meaning: 'The VCPU cannot be entered again.',
    recovery: 'td',
    cause: 'The guest took a triple fault, or its VCPU state became unusable. The VCPU is now DISABLED.',
    remedy: 'Read the guest console; KVM reports a shutdown event. Destroy the TD and start it again.',
  },
  TDX_NON_RECOVERABLE_TD: {
    meaning: 'The TD cannot run again, but its memory can still be read for debugging.',
    recovery: 'td',
    cause: 'The TD met an exit that the module cannot continue from.',
    remedy:
      'Destroy the TD. When it repeats with the same guest, note the exit reason and update the module.',
  },
  TDX_INTERRUPTED_RESUMABLE: {
    meaning: 'An interrupt came in before the leaf was through; it has kept its progress.',
    recovery: 'retry',
    cause: 'Long leaves (TDH.PHYMEM.CACHE.WB, TDH.SYS.DISABLE, exports) stop for host interrupts on purpose.',
    remedy: 'Call again with the resume operand set (RCX=1 for PHYMEM.CACHE.WB) until it succeeds.',
  },
  TDX_INTERRUPTED_RESTARTABLE: {
    meaning: 'An interrupt came in before the leaf was through; it starts over on the next call.',
    recovery: 'retry',
    cause:
      'A host interrupt during a split (TDH.MEM.PAGE.DEMOTE). Under many interrupts it may never finish.',
    remedy:
      'Repeat with interrupts held off, or use a module with ENHANCED_DEMOTE_INTERRUPTIBILITY (feature bit 51).',
  },
  TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE: {
    meaning: 'The TD cannot run again, and its memory cannot be read any more.',
    recovery: 'td',
    cause:
      'A machine check hit the memory of the TD: often a stray host write to private memory on a machine with the ' +
      'partial-write erratum, or a hardware memory error.',
    remedy:
      'Destroy the TD and look for a machine-check line that says TDX private memory. A kernel or driver that ' +
      'writes to guest memory by a shared mapping is the usual suspect; otherwise test the DIMM.',
  },
  TDX_INVALID_RESUMPTION: {
    meaning: 'A resumed call does not continue the one that was interrupted.',
    recovery: 'input',
    cause: 'The operands changed between the interrupted call and its resumption.',
    remedy: 'Resume with exactly the operands of the interrupted call, or start it afresh.',
  },
  TDX_NON_RECOVERABLE_TD_WRONG_APIC_MODE: {
    meaning: 'The TD cannot run again: its VCPU was not in x2APIC mode.',
    recovery: 'td',
    cause: 'A TD runs in x2APIC mode only.',
    remedy: 'Give the guest a CPU model with x2APIC, then create the TD again.',
  },
  TDX_CROSS_TD_FAULT: {
    meaning: 'A service TD touched a target TD that needs the host first; the instruction will be retried.',
    recovery: 'retry',
    cause: 'The target was busy or not in a state that the service TD may work on.',
    remedy: 'Handle the condition of the target TD that the details name, then enter the service TD again.',
  },
  TDX_CROSS_TD_TRAP: {
    meaning: 'A service TD touched a target TD that needs the host; the instruction is complete.',
    recovery: 'retry',
    cause: 'The target reached a condition that only its host can handle.',
    remedy: 'Handle the condition of the target TD, then enter the service TD again.',
  },
  TDX_NON_RECOVERABLE_TD_CORRUPTED_MD: {
    meaning: 'The TD cannot run again: metadata the module keeps for it is damaged.',
    recovery: 'td',
    cause: 'A memory error or a stray write hit a control page of the TD.',
    remedy: 'Destroy the TD; check the machine-check log and the memory of the machine.',
  },
  TDX_OPERAND_INVALID: {
    meaning: 'An operand has a value that the leaf does not take.',
    recovery: 'input',
    cause:
      'With operand RAX (the bare value 0xc000010000000000): this module has no such leaf or leaf version. ' +
      'Otherwise: misaligned address, reserved bits set, a KeyID in an address that must be shared, a KeyID out of ' +
      'the private range, or TD_PARAMS the module does not accept.',
    remedy:
      'For RAX use a module that has the leaf. Otherwise look at the operand named here; for CPUID_CONFIG the ' +
      'module leaves the CPUID leaf and subleaf at fault in RCX, which the kernel does not print.',
  },
  TDX_OPERAND_ADDR_RANGE_ERROR: {
    meaning: 'The address lies in no memory that the module manages.',
    recovery: 'input',
    cause:
      'The page is outside every TDMR, in a reserved area, or in a 1 GiB block that TDH.SYS.TDMR.INIT has not ' +
      'finished. Typical for memory onlined after TDX initialisation (hot-plug, CXL, dax/kmem).',
    remedy: 'Use memory that was RAM when TDX initialised; keep memory added later away from TDs.',
  },
  TDX_EVENT_FILTER_INVALID: {
    meaning: 'A performance-event filter of the TD is malformed.',
    recovery: 'input',
    cause: 'A filter passed to TDH.MNG.INIT has reserved bits set or names an event that cannot be filtered.',
    remedy: 'Correct the filter whose number the detail gives.',
  },
  TDX_EVENT_FILTER_ORDER_INVALID: {
    meaning: 'The performance-event filters of the TD are not in ascending order.',
    recovery: 'input',
    cause: 'The list passed to TDH.MNG.INIT is not sorted, or has duplicates.',
    remedy: 'Sort the filters and drop duplicates.',
  },
  TDX_OPERAND_BUSY: {
    meaning: 'Another logical processor holds the object; the module never waits for a lock.',
    recovery: 'retry',
    cause:
      'Two leaves worked on the same object at once. KeyID table (KOT): two TDs created or destroyed together. ' +
      'Key table (KET): two packages programmed keys at once. Secure EPT or TDR: VCPUs run while the host changes ' +
      'the mapping.',
    remedy:
      'Repeat. When it persists, serialise the callers: one lock round TDH.MNG.CREATE, KEY.CONFIG and KEY.FREEID; ' +
      'for secure EPT, force the VCPUs out of the TD and repeat once.',
  },
  TDX_PREVIOUS_TLB_EPOCH_BUSY: {
    meaning: 'VCPUs that entered before the last TDH.MEM.TRACK are still inside the TD.',
    recovery: 'retry',
    cause: 'TDH.MEM.TRACK was called twice without every VCPU having left in between.',
    remedy: 'Force all VCPUs of the TD to exit, then repeat TDH.MEM.TRACK.',
  },
  TDX_SYS_BUSY: {
    meaning: 'Another leaf that changes the global state of the module is running.',
    recovery: 'retry',
    cause:
      'Initialisation leaves (SYS.INIT, SYS.LP.INIT, SYS.CONFIG, SYS.KEY.CONFIG) overlapped on two processors, or ' +
      'SYS.SHUTDOWN met a processor that is inside the module.',
    remedy: 'Run these leaves one at a time, and repeat.',
  },
  TDX_RND_NO_ENTROPY: {
    meaning: 'The hardware random number generator had nothing to give.',
    recovery: 'retry',
    cause: 'RDRAND or RDSEED ran dry: many processors drew at once.',
    remedy: 'Repeat; Linux tries 10 times, then TD creation gives -EAGAIN. Persistent: a hardware fault.',
  },
  TDX_OPERAND_BUSY_HOST_PRIORITY: {
    meaning: 'The guest must let the host go first on this object.',
    recovery: 'retry',
    cause: 'The host failed to get a lock that the guest holds; the module now prefers the host.',
    remedy: 'The guest repeats its TDCALL; the host repeats its SEAMCALL, which clears the priority.',
  },
  TDX_HOST_PRIORITY_BUSY_TIMEOUT: {
    meaning: 'The TD left because a lock was kept for the host too long (1 s by default).',
    recovery: 'retry',
    cause: 'A host SEAMCALL got OPERAND_BUSY and was not repeated, so the guest waited for nothing.',
    remedy: 'Repeat the host call that was busy, then enter the TD again.',
  },
  TDX_INTERRUPTED_BUSY: {
    meaning: 'The leaf stopped part-way because an object was busy; it has kept its progress.',
    recovery: 'retry',
    cause: 'Another processor held a page or an entry that a long leaf came to.',
    remedy: 'Call again with the resume operand set.',
  },
  TDX_PAGE_METADATA_INCORRECT: {
    meaning: 'The page is not of the kind that the leaf works on.',
    recovery: 'input',
    cause:
      'The PAMT says another owner or type: the page belongs to a TD already, is free where a TD page was ' +
      'expected, or lies in a reserved area. From TDH.PHYMEM.PAGE.RECLAIM: the page was reclaimed before.',
    remedy:
      'Ask TDH.PHYMEM.PAGE.RDMD for the type and owner. A page that will not be reclaimed must be leaked, never ' +
      'given back to the allocator; Linux does so and warns.',
  },
  TDX_PAGE_ALREADY_FREE: {
    meaning: 'The page belonged to nobody already.',
    recovery: 'done',
    cause: 'It was reclaimed or removed before.',
    remedy: 'Nothing.',
  },
  TDX_PAGE_NOT_OWNED_BY_TD: {
    meaning: 'The page belongs to another TD.',
    recovery: 'input',
    cause: 'The TDR and the page passed together do not match.',
    remedy: 'Check the bookkeeping of which page was given to which TD.',
  },
  TDX_PAGE_NOT_FREE: {
    meaning: 'The page is in use and cannot be taken.',
    recovery: 'input',
    cause: 'A page offered as PAMT memory is a TD page, or was lent to the PAMT already.',
    remedy: 'Offer a page that is free.',
  },
  TDX_HPA_RANGE_NOT_FREE: {
    meaning: 'The 2 MiB range has PAMT pages already, or holds a 2 MiB page.',
    recovery: 'done',
    cause: 'Two processors ran TDH.PHYMEM.PAMT.ADD for the same 2 MiB range: the other one won the race.',
    remedy: 'Take the pages offered back and go on: the range is covered.',
  },
  TDX_NO_PAMT_PAGE_PAIR: {
    meaning: 'The 2 MiB range has no PAMT pages to give back.',
    recovery: 'input',
    cause: 'TDH.PHYMEM.PAMT.REMOVE for a range that was never covered, or was uncovered before.',
    remedy: 'Check the reference count kept per 2 MiB range.',
  },
  TDX_PAMT_PAGE_NOT_EMPTY: {
    meaning: 'A 4 KiB page of the range is still in use, so its PAMT pages stay.',
    recovery: 'step',
    cause: 'TDH.PHYMEM.PAMT.REMOVE came before the last page of the range was freed.',
    remedy: 'Free the page whose number the detail gives, then repeat.',
  },
  TDX_INTERRUPTED_PAMT: {
    meaning: 'The leaf stopped part-way: a page it came to has no PAMT entry yet.',
    recovery: 'step',
    cause: 'Dynamic PAMT: a 2 MiB range among the pages passed was not covered.',
    remedy: 'Cover the range with TDH.PHYMEM.PAMT.ADD, then resume.',
  },
  TDX_MISSING_PAMT_PAGE_PAIR: {
    meaning: 'The 4 KiB page has no PAMT entry: its 2 MiB range was given no PAMT pages.',
    recovery: 'step',
    cause: 'Dynamic PAMT is on, and TDH.PHYMEM.PAMT.ADD was not called for the range of this page.',
    remedy: 'Call TDH.PHYMEM.PAMT.ADD with two free pages for the 2 MiB range, then repeat.',
  },
  TDX_TD_ASSOCIATED_PAGES_EXIST: {
    meaning: 'The TD still owns pages, so its root page cannot be reclaimed.',
    recovery: 'step',
    cause: 'TDH.PHYMEM.PAGE.RECLAIM was called on the TDR before every other page of the TD.',
    remedy: 'Reclaim every page of the TD first; the TDR comes last.',
  },
} as const satisfies Partial<Record<StatusName, StatusAdvice>>;
