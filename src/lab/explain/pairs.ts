/** What a leaf and a status say together, where that is more than each says alone. */
import type { Recovery } from './advice/advice.ts';
import type { Case } from './explanation.ts';

/** One pair; `detail` restricts it to one operand or value. @internal */
export interface Pair extends Case {
  readonly leaf: string;
  readonly status: string;
  readonly detail?: number;
  /** Stands in for the recovery of the status. */
  readonly recovery: Recovery;
}

/** Pairs seen on real hosts (Linux host rules 5) or following from the order of bring-up. @internal */
export const PAIRS: readonly Pair[] = [
  {
    leaf: 'TDH.SYS.RD',
    status: 'TDX_SYS_NOT_READY',
    recovery: 'module',
    cause:
      'The module is a TDX 1.0 one: it has no TDH.SYS.RD, and reports its state before it looks at the leaf.',
    remedy: 'Install a TDX 1.5 module (BIOS update, or the image on the boot partition), then boot cold.',
  },
  {
    leaf: 'TDH.SYS.RD',
    status: 'TDX_METADATA_FIELD_ID_INCORRECT',
    recovery: 'module',
    cause: 'The kernel reads a field that this release of the module does not have.',
    remedy: 'Update the module; `tdxlab explain` on the field id says which release brought it.',
  },
  {
    leaf: 'TDH.SYS.RD',
    status: 'TDX_SYS_LP_INIT_NOT_DONE',
    recovery: 'step',
    cause: 'The metadata was read on a processor before its TDH.SYS.LP.INIT.',
    remedy: 'Stay on an initialised processor while reading.',
  },
  {
    leaf: 'TDH.SYS.INIT',
    status: 'TDX_SYS_INIT_NOT_PENDING',
    recovery: 'reboot',
    cause: 'The module was initialised before this kernel started: kexec, or a second try.',
    remedy: 'Boot cold; for kexec both kernel and module need TDH.SYS.DISABLE.',
  },
  {
    leaf: 'TDH.SYS.CONFIG',
    status: 'TDX_SYS_CONFIG_NOT_PENDING',
    recovery: 'step',
    cause:
      'A processor that the BIOS enabled never ran TDH.SYS.LP.INIT: maxcpus=, nr_cpus=, nosmt or an offline CPU.',
    remedy: 'Boot with every processor online; turn unused ones off in the BIOS instead.',
  },
  {
    leaf: 'TDH.SYS.CONFIG',
    status: 'TDX_OPERAND_INVALID',
    detail: 8,
    recovery: 'input',
    cause: 'The KeyID in R8 is not private, or Dynamic PAMT was asked of a module or CPU that cannot do it.',
    remedy: 'Check MSR 0x87; try without Dynamic PAMT.',
  },
  {
    leaf: 'TDH.SYS.KEY.CONFIG',
    status: 'TDX_KEY_CONFIGURED',
    recovery: 'step',
    cause: 'The same package was visited twice, so another one has no key yet.',
    remedy: 'Pick one processor per package by its topology, not by its number.',
  },
  {
    leaf: 'TDH.SYS.DISABLE',
    status: 'TDX_OPERAND_INVALID',
    detail: 0,
    recovery: 'module',
    cause: 'The module has no TDH.SYS.DISABLE.',
    remedy:
      'Without it, kexec on a machine with the partial-write erratum may meet machine checks: update the module.',
  },
  {
    leaf: 'TDH.MNG.CREATE',
    status: 'TDX_OPERAND_BUSY',
    detail: 186,
    recovery: 'retry',
    cause: 'Two TDs were created or destroyed at the same moment; both need the KeyID table.',
    remedy: 'Take one lock round all leaves that touch KeyIDs, and repeat.',
  },
  {
    leaf: 'TDH.MNG.CREATE',
    status: 'TDX_HKID_NOT_FREE',
    recovery: 'input',
    cause: 'The KeyID of a TD that ended was given out before TDH.MNG.KEY.FREEID.',
    remedy: 'Give a KeyID back to the pool only when FREEID succeeded; leak it otherwise.',
  },
  {
    leaf: 'TDH.MNG.KEY.CONFIG',
    status: 'TDX_LIFECYCLE_STATE_INCORRECT',
    recovery: 'done',
    cause: 'Every package has the key of this TD already.',
    remedy: 'Go on; do not repeat after the last package.',
  },
  {
    leaf: 'TDH.MNG.INIT',
    status: 'TDX_OPERAND_INVALID',
    detail: 69,
    recovery: 'input',
    cause: 'A CPUID value of the VM is not one the module lets the host choose. RCX names leaf and subleaf.',
    remedy:
      'Use a CPU model without TSX and WAITPKG, and only bits from KVM_TDX_CAPABILITIES; VMM and kernel must be of ' +
      'the same age.',
  },
  {
    leaf: 'TDH.MNG.VPFLUSHDONE',
    status: 'TDX_FLUSHVP_NOT_DONE',
    recovery: 'step',
    cause: 'A VCPU was not flushed on the processor where it ran last; the KeyID of the TD leaks.',
    remedy: 'Keep CPUs online while TDs end; reboot to regain the KeyID.',
  },
  {
    leaf: 'TDH.MNG.KEY.FREEID',
    status: 'TDX_WBCACHE_NOT_COMPLETE',
    recovery: 'step',
    cause: 'TDH.PHYMEM.CACHE.WB was not finished on some package, often because it has no online CPU.',
    remedy: 'Bring a CPU of every package online before the TD ends.',
  },
  {
    leaf: 'TDH.PHYMEM.PAGE.RECLAIM',
    status: 'TDX_PAGE_METADATA_INCORRECT',
    recovery: 'reboot',
    cause:
      'The page is not one of a TD any more: it was reclaimed before, or removal and teardown raced. Seen when large ' +
      'TDs (56 VCPUs, 256 GB) end.',
    remedy: 'Update the kernel; pages it could not reclaim are leaked until reboot.',
  },
  {
    leaf: 'TDH.PHYMEM.PAGE.RECLAIM',
    status: 'TDX_TD_ASSOCIATED_PAGES_EXIST',
    recovery: 'step',
    cause: 'The root page of the TD was reclaimed before all of its other pages.',
    remedy: 'Reclaim it last.',
  },
  {
    leaf: 'TDH.MEM.PAGE.AUG',
    status: 'TDX_EPT_ENTRY_STATE_INCORRECT',
    recovery: 'done',
    cause: 'The page is mapped already: two VCPUs faulted on the same address.',
    remedy: 'Take the page back and let the guest go on.',
  },
  {
    leaf: 'TDH.VP.ENTER',
    status: 'TDX_OPERAND_BUSY',
    recovery: 'retry',
    cause: 'The host changes the secure EPT, or starts a TLB epoch, while the VCPU enters.',
    remedy: 'Enter again after the change.',
  },
];
