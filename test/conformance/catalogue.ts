/** Every conformance case, and where it passes. docs/conformance.md shows it as a table. */
import type { BackendName } from '../../src/kvm/backend.ts';

/** `linux` is the kernel of the machine that runs the tests, where it has /dev/kvm. */
export type Column = BackendName | 'linux';

/** Why a case does not apply, or that it passes. */
export type Verdict = 'passes' | { readonly reason: string };

export interface Case {
  readonly title: string;
  readonly on: Readonly<Record<Column, Verdict>>;
}

export interface Suite {
  /** Test file, in test/conformance/. */
  readonly file: string;
  readonly cases: Readonly<Record<string, Case>>;
}

export const COLUMNS: readonly Column[] = ['plain', 'sw-protected', 'tdx', 'snp', 'pkvm', 'linux'];

const NO_GUESTS = 'guests are scripts, which no real processor runs';
const NO_PRIVATE = 'no private memory';
const OTHER = 'of another technology';

type Exceptions = Partial<Record<Column, string>>;

function passes(title: string, except: Exceptions = {}): Case {
  const on = COLUMNS.map((column): [Column, Verdict] => {
    const reason = except[column];
    return [column, reason === undefined ? 'passes' : { reason }];
  });
  return { title, on: Object.fromEntries(on) as Case['on'] };
}

/** With a guest that runs, so on the model only. */
function runs(title: string, except: Exceptions = {}): Case {
  return passes(title, { linux: NO_GUESTS, ...except });
}

function nowhere(title: string, reason: string): Case {
  return passes(title, Object.fromEntries(COLUMNS.map((column) => [column, reason])));
}

const OTHERS: Exceptions = { plain: OTHER, 'sw-protected': OTHER, pkvm: OTHER, linux: OTHER };

function ofTdx(title: string): Case {
  return runs(title, { ...OTHERS, snp: OTHER });
}

function ofSnp(title: string): Case {
  return runs(title, { ...OTHERS, tdx: OTHER });
}

const CONVERTS: Exceptions = { plain: NO_PRIVATE };
const VE = 'a TD handles holes in its shared memory itself, by #VE, and KVM never takes such an entry back';
const PRIVATE_ONLY = 'slots of protected guests have a guest_memfd, which cannot be moved';
const POISONED = 'a frame that was taken from a protected guest stays empty: KVM_RUN ends with EFAULT';
const HIDDEN = 'the host sees no instruction of such a guest';

export const CATALOGUE = {
  guest_memfd_test: {
    file: 'guest-memfd.test.ts',
    cases: {
      flags: passes('each flag is taken or refused as the capability says'),
      T1: passes('create_multiple'),
      T2: passes('invalid_sizes'),
      T3: passes('file_read_write'),
      T4: passes('mmap_not_supported'),
      T5: passes('mmap_cow'),
      T6: passes('mmap_supported'),
      T7: passes('fault_overflow'),
      T8: passes('fault_private'),
      T9: passes('mbind'),
      T10: passes('numa_allocation'),
      T11: passes('collapse'),
      T12: passes('file_size'),
      T13: passes('fallocate'),
      T14: passes('invalid_punch_hole'),
      T15: passes('invalid_binding'),
    },
  },
  'guest_memfd_test, guest': {
    file: 'guest-memfd-guest.test.ts',
    cases: { T16: runs('guest and host see each other’s writes through an INIT_SHARED file') },
  },
  set_memory_region_test: {
    file: 'set-memory-region.test.ts',
    cases: {
      S1: passes('flags'),
      S2: passes('max slots', { linux: 'takes too long' }),
      S3: passes('add_private_region'),
      S4: passes('overlapping'),
      slots: passes('whole pages, addresses that exist, numbers that exist'),
    },
  },
  'set_memory_region_test, guest': {
    file: 'set-memory-region-guest.test.ts',
    cases: {
      S5: runs('KVM_RUN without any region is an internal error', {
        tdx: 'its first fetch is private: a memory fault, which is P1',
        snp: 'no guest without memory can be launched: it needs a page for the GHCB',
        pkvm: 'its first fetch is private: a memory fault, which is P1',
      }),
      S6: runs('MMIO while an event is delivered is an internal error with the address', {
        tdx: HIDDEN,
        snp: HIDDEN,
        pkvm: HIDDEN,
      }),
      S7: runs('a slot is moved while the guest reads it', { tdx: VE, pkvm: PRIVATE_ONLY }),
      S8: runs('a slot is deleted and made again while the guest reads it', { tdx: VE, pkvm: PRIVATE_ONLY }),
      quirk: runs('S8 with KVM_X86_QUIRK_SLOT_ZAP_ALL on and off', { tdx: VE, pkvm: 'no quirk on arm64' }),
    },
  },
  private_mem_kvm_exits_test: {
    file: 'private-mem-kvm-exits.test.ts',
    cases: {
      P1: runs('the slot is deleted while the vCPU reads a private page', CONVERTS),
      P2: runs('private memory in a slot without guest_memfd', CONVERTS),
    },
  },
  private_mem_conversions_test: {
    file: 'private-mem-conversions.test.ts',
    cases: {
      C1: runs('explicit conversion, with and without fallocate, several vCPUs and slots', CONVERTS),
      C2: runs('holes punched under private memory read zero', { ...CONVERTS, pkvm: POISONED }),
      C3: runs('the file outlives the descriptor of its VM', CONVERTS),
    },
  },
  pre_fault_memory_test: {
    file: 'pre-fault-memory.test.ts',
    cases: {
      shared: runs('shared memory, to the end of the slot and beyond', {
        pkvm: 'only the guest shares its memory, page by page',
      }),
      private: runs('private memory, to the end of the slot and beyond', CONVERTS),
      replaced: runs('the slot is deleted and made again meanwhile', { pkvm: POISONED }),
      misuse: runs('arguments that are none'),
    },
  },
  guest_memfd_conversions_test: {
    file: 'guest-memfd-conversions.test.ts',
    cases: {
      init_private: runs('pages begin private: no access by the host until they are shared', CONVERTS),
      init_shared: runs('pages begin shared, and go back and forth', CONVERTS),
      indexing: runs('each page is what it was made, whatever its neighbours are', CONVERTS),
      before_allocation_shared: runs('a page is made shared before it has memory', CONVERTS),
      before_allocation_private: runs('a page is made private before it has memory', CONVERTS),
      unallocated_folios: runs('a range that has memory in places only', CONVERTS),
      truncate: runs('punching a hole changes no attribute', CONVERTS),
      forked_accesses: runs('a child loses access with its parent', CONVERTS),
      elevated_references: runs('a page that is referred to is not made private: EAGAIN and where', CONVERTS),
      misuse: runs('arguments that are none', CONVERTS),
    },
  },
  sev_init2_tests: {
    file: 'sev-init2.test.ts',
    cases: {
      test_vm_types: ofSnp('INIT2 is for VMs of its own type'),
      test_flags: ofSnp('INIT2 knows no flag'),
      test_features: ofSnp('VMSA features: those that the host reports, no other'),
    },
  },
  'sev_init2_tests, for TDs': {
    file: 'tdx-init-vm.test.ts',
    cases: {
      vm_types: ofTdx('INIT_VM is for VMs of its own type, once'),
      flags: ofTdx('INIT_VM knows no flag'),
      attributes: ofTdx('attributes: those of the capabilities, no other'),
      xfam: ofTdx('XFAM: the bits of the capabilities, no other'),
    },
  },
  sev_smoke_test: {
    file: 'sev-smoke.test.ts',
    cases: {
      guest_snp_code: ofSnp('the guest asks to be ended: SYSTEM_EVENT SEV_TERM with one word'),
      test_sync_vmsa: ofSnp('state set before the launch is what the save area holds'),
      guest_shutdown_code: ofSnp('the guest shuts down: KVM_EXIT_SHUTDOWN'),
    },
  },
  'sev_smoke_test, for all': {
    file: 'smoke.test.ts',
    cases: {
      bits: runs('the guest sees what it is', {
        plain: NO_PRIVATE,
        'sw-protected': 'nothing tells a guest of it',
      }),
      shutdown: runs('the guest shuts down: KVM_EXIT_SHUTDOWN'),
    },
  },
  sev_migrate_tests: {
    file: '',
    cases: {
      migrate: nowhere('chains and rings of moves between VMs of a host', 'moving VMs is not modelled'),
      mirror: nowhere('mirror VMs take few commands', 'SEV and SEV-ES only, which are not modelled'),
    },
  },
  sev_dbg_test: {
    file: '',
    cases: {
      debug: nowhere(
        'DBG_ENCRYPT and DBG_DECRYPT at every offset and length',
        'KVM offers it for SEV only; TDs with DEBUG are not supported by KVM',
      ),
    },
  },
  tdx_vm_tests: {
    file: 'tdx-vm.test.ts',
    cases: {
      lifecycle: ofTdx('built, run, ended'),
      report_fatal_error: ofTdx('SYSTEM_EVENT TDX_FATAL with all registers'),
      ioexit: ofTdx('a port is written, then read'),
      cpuid: ofTdx('the values of the module, of INIT_VM and of the host'),
      get_td_vmcall_info: ofTdx('leaf 0 has no bits'),
      guest_writes: ofTdx('MMIO writes of 1, 2, 4 and 8 bytes; others are invalid'),
      guest_reads: ofTdx('MMIO reads of 1, 2, 4 and 8 bytes; others are invalid'),
      guest_hlt: ofTdx('a TD that halts sleeps until a signal'),
      msr_reads: ofTdx('registers of the list only'),
      msr_writes: ofTdx('registers of the list only, and none that is read-only'),
      msr_filter: ofTdx('rules of user space: what they deny is invalid'),
      get_quote: ofTdx('goes to user space for shared buffers only'),
      setup_event_notify: ofTdx('goes to user space for vectors of interrupts only'),
    },
  },
  tdx_memory_tests: {
    file: 'tdx-memory.test.ts',
    cases: {
      shared_mem: ofTdx('guest and host exchange values in shared memory'),
      upm: ofTdx('implicit and explicit conversion of ranges with guard pages'),
      upm_parallel: ofTdx('two TDs at once'),
      gmem_private_and_shared: ofTdx('both halves of a slot keep their own contents'),
      vm_huge_page: ofTdx('2 MiB at once with the huge-page options, and split when a page is converted'),
    },
  },
} as const satisfies Record<string, Suite>;

export type SuiteName = keyof typeof CATALOGUE;
export type CaseOf<S extends SuiteName> = keyof (typeof CATALOGUE)[S]['cases'];
