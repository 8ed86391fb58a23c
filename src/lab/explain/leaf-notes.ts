/**
 * What each leaf is for, its registers in brief, and when the host path calls it (module facts 3 to 9 and 14, Linux
 * host rules 1.2 to 1.13).
 */

/** Notes on one leaf. @internal */
export interface LeafNote {
  readonly does: string;
  readonly in?: string;
  readonly out?: string;
  /** When the host path, or for guest leaves the guest, calls it. */
  readonly when?: string;
}

const GPA_IN = 'RCX guest address and level, RDX TDR';
const SEPT_OUT = 'on a secure EPT error RCX entry, RDX level and state';
const TEARDOWN = 'teardown of a TD';
const BUILD = 'building a TD';
const MIGRATION = 'live migration; not used by Linux today';
const CONNECT = 'TDX Connect (2.x modules); not used by Linux today';

/** Host leaves, by ABI name. @internal */
export const HOST_LEAF_NOTES: Readonly<Record<string, LeafNote>> = {
  'TDH.VP.ENTER': {
    does: 'enters a TD on this processor until it exits',
    in: 'RCX TDVPR, RDX RBX RSI RDI R8-R15 answers to the last TDVMCALL',
    out: 'RAX status and exit reason, RCX qualification, RDX extended qualification, R8 guest address, R9 event',
    when: 'every run of a VCPU',
  },
  'TDH.MNG.ADDCX': {
    does: 'gives a TD a page for its control structure',
    in: 'RCX page, RDX TDR',
    when: `${BUILD}: TDCS_BASE_SIZE/4096 times after the keys are configured`,
  },
  'TDH.MEM.PAGE.ADD': {
    does: 'copies a page into a TD that is being built and measures its address',
    in: 'RCX guest address, RDX TDR, R8 page, R9 source',
    out: SEPT_OUT,
    when: `${BUILD}: initial memory (KVM_TDX_INIT_MEM_REGION)`,
  },
  'TDH.MEM.SEPT.ADD': {
    does: 'adds a page to the secure EPT of a TD',
    in: `${GPA_IN}, R8 page`,
    out: SEPT_OUT,
    when: 'a private fault whose secure EPT pages are missing',
  },
  'TDH.VP.ADDCX': {
    does: 'gives a VCPU a page for its state',
    in: 'RCX page, RDX TDVPR',
    when: `${BUILD}: TDVPS_BASE_SIZE/4096 - 1 times per VCPU`,
  },
  'TDH.MEM.PAGE.RELOCATE': {
    does: 'moves a mapped page to another physical page',
    in: `${GPA_IN}, R8 new page`,
    out: 'RCX old page',
    when: 'memory compaction; not used by Linux',
  },
  'TDH.MEM.PAGE.AUG': {
    does: 'adds a page to a running TD; the guest must accept it',
    in: `${GPA_IN}, R8 page`,
    out: SEPT_OUT,
    when: 'a private fault of a running TD',
  },
  'TDH.MEM.RANGE.BLOCK': {
    does: 'blocks new translations of a page',
    in: GPA_IN,
    out: SEPT_OUT,
    when: 'before a page is removed: BLOCK, TRACK, REMOVE',
  },
  'TDH.MNG.KEY.CONFIG': {
    does: 'sets up the key of a TD on this package',
    in: 'RCX TDR',
    when: `${BUILD}: once on one processor of every package`,
  },
  'TDH.MNG.CREATE': {
    does: 'creates a TD and binds a KeyID to it',
    in: 'RCX TDR page, RDX KeyID',
    when: `${BUILD}: the first leaf; takes the KeyID table, so calls must be serialised`,
  },
  'TDH.VP.CREATE': {
    does: 'creates a VCPU',
    in: 'RCX TDVPR page, RDX TDR',
    when: `${BUILD}: once per VCPU (KVM_TDX_INIT_VCPU)`,
  },
  'TDH.MNG.RD': {
    does: 'reads a metadata field of a TD',
    in: 'RCX TDR, RDX field id',
    out: 'R8 value',
    when: 'the TSC settings after TDH.MNG.INIT, CPUID values for user space',
  },
  'TDH.MEM.RD': { does: 'reads memory of a debug TD', in: 'RCX guest address, RDX TDR', out: 'R8 value' },
  'TDH.MNG.WR': {
    does: 'writes a metadata field of a TD',
    in: 'RCX TDR, RDX field id, R8 value, R9 mask',
    out: 'R8 old value',
  },
  'TDH.MEM.WR': {
    does: 'writes memory of a debug TD',
    in: 'RCX guest address, RDX TDR, R8 value',
    out: 'R8 old value',
  },
  'TDH.MEM.PAGE.DEMOTE': {
    does: 'splits a large page',
    in: `${GPA_IN}, R8 new secure EPT page (R12, R13 PAMT pages with Dynamic PAMT)`,
    out: SEPT_OUT,
    when: 'the huge-page series: BLOCK, TRACK, DEMOTE',
  },
  'TDH.MR.EXTEND': {
    does: 'measures 256 bytes of initial memory into MRTD',
    in: 'RCX guest address, RDX TDR',
    when: `${BUILD}: 16 times per measured page`,
  },
  'TDH.MR.FINALIZE': {
    does: 'closes the measurement and makes the TD runnable',
    in: 'RCX TDR',
    when: `${BUILD}: the last leaf (KVM_TDX_FINALIZE_VM)`,
  },
  'TDH.VP.FLUSH': {
    does: 'unbinds a VCPU from this processor',
    in: 'RCX TDVPR',
    when: `a VCPU moves to another processor, CPU offline, ${TEARDOWN}`,
  },
  'TDH.MNG.VPFLUSHDONE': {
    does: 'confirms that no VCPU of the TD is bound to a processor',
    in: 'RCX TDR',
    when: `${TEARDOWN}: after the last TDH.VP.FLUSH`,
  },
  'TDH.MNG.KEY.FREEID': {
    does: 'takes the KeyID from the TD',
    in: 'RCX TDR',
    when: `${TEARDOWN}: after TDH.PHYMEM.CACHE.WB on every package`,
  },
  'TDH.MNG.INIT': {
    does: 'sets attributes, XFAM, CPUID and time of a TD',
    in: 'RCX TDR, RDX TD_PARAMS (1 KiB)',
    out: 'RCX the CPUID leaf and subleaf at fault',
    when: `${BUILD}: after the control pages (KVM_TDX_INIT_VM)`,
  },
  'TDH.VP.INIT': {
    does: 'initialises the state of a VCPU',
    in: 'RCX TDVPR, RDX initial RCX of the guest; version 1: R8 x2APIC id',
    when: `${BUILD}: after the pages of the VCPU`,
  },
  'TDH.MEM.PAGE.PROMOTE': {
    does: 'merges 512 pages into a large one',
    in: GPA_IN,
    out: 'RCX the secure EPT page that became free',
  },
  'TDH.PHYMEM.PAGE.RDMD': {
    does: 'reads what the module knows of a physical page',
    in: 'RCX physical address',
    out: 'RCX type, RDX owner, R8 size, R9 epoch',
    when: 'a machine check: is the bad page private memory?',
  },
  'TDH.MEM.SEPT.RD': { does: 'reads a secure EPT entry', in: GPA_IN, out: 'RCX entry, RDX level and state' },
  'TDH.VP.RD': { does: 'reads a metadata field of a VCPU', in: 'RCX TDVPR, RDX field id', out: 'R8 value' },
  'TDH.MNG.KEY.RECLAIMID': { does: 'nothing: kept for old hosts, always succeeds', in: 'RCX TDR' },
  'TDH.PHYMEM.PAGE.RECLAIM': {
    does: 'takes a page back from a TD that was torn down',
    in: 'RCX physical address',
    out: 'RCX type, RDX owner, R8 size',
    when: `${TEARDOWN}: every page, the TDR last`,
  },
  'TDH.MEM.PAGE.REMOVE': {
    does: 'takes a page out of a TD',
    in: GPA_IN,
    out: 'RCX page',
    when: 'memory is punched out, or private memory becomes shared',
  },
  'TDH.MEM.SEPT.REMOVE': { does: 'takes a page out of the secure EPT', in: GPA_IN, out: 'RCX page' },
  'TDH.SYS.KEY.CONFIG': {
    does: 'makes the global key on this package',
    when: 'bring-up: once on one processor of every package, after TDH.SYS.CONFIG and a cache write-back',
  },
  'TDH.SYS.INFO': {
    does: 'writes TDSYSINFO and the CMRs to memory',
    in: 'RCX buffer of 1 KiB, RDX its size, R8 CMR buffer, R9 its entries',
    out: 'RDX bytes, R9 entries',
    when: 'bring-up with TDX 1.0 and early Linux series; later kernels use TDH.SYS.RD',
  },
  'TDH.SYS.INIT': {
    does: 'starts the module: checks the platform once',
    in: 'RCX 0; version 1: R8 where to leave fatal diagnostics',
    out: 'on a CPUID error RCX leaf, RDX R8 mask, R9 R10 wanted value',
    when: 'bring-up: the first SEAMCALL; a module that is not loaded shows here',
  },
  'TDH.SYS.RD': {
    does: 'reads a global metadata field',
    in: 'RDX field id, all ones for the first',
    out: 'RDX next field id, R8 value',
    when: 'bring-up: version, features, limits, CPUID configuration; a TDX 1.0 module does not have it',
  },
  'TDH.SYS.LP.INIT': {
    does: 'initialises this logical processor for the module',
    when: 'bring-up: once on every processor, before TDH.SYS.CONFIG; later on CPU online',
  },
  'TDH.SYS.TDMR.INIT': {
    does: 'initialises the next 4 MiB of PAMT entries of a TDMR',
    in: 'RCX base of the TDMR',
    out: 'RDX next address to initialise',
    when: 'bring-up: the last stage, 256 calls per GiB of memory',
  },
  'TDH.SYS.RDALL': {
    does: 'writes every global metadata field to memory',
    in: 'RDX buffer, R8 first field id',
    when: 'an alternative to many TDH.SYS.RD; Linux does not use it',
  },
  'TDH.MEM.TRACK': {
    does: 'starts a new TLB epoch of a TD',
    in: 'RCX TDR',
    when: 'between blocking and removing a page, with all VCPUs kicked out',
  },
  'TDH.MEM.RANGE.UNBLOCK': { does: 'undoes a block', in: GPA_IN, out: SEPT_OUT },
  'TDH.PHYMEM.CACHE.WB': {
    does: 'writes the caches of this package back for KeyIDs that are being freed',
    in: 'RCX 0 start, 1 resume',
    when: `${TEARDOWN}: on one processor of every package`,
  },
  'TDH.PHYMEM.PAGE.WBINVD': {
    does: 'writes back and invalidates the cache lines of one page',
    in: 'RCX physical address with KeyID',
    when: 'after a page was removed or reclaimed, before it is normal memory again',
  },
  'TDH.MEM.SEPT.WR': { does: 'nothing: it has a number but no module answers to it' },
  'TDH.VP.WR': {
    does: 'writes a metadata field of a VCPU',
    in: 'RCX TDVPR, RDX field id, R8 value, R9 mask',
    out: 'R8 old value',
  },
  'TDH.SYS.LP.SHUTDOWN': {
    does: 'nothing: it once shut this processor down for the module, and still succeeds',
    when: 'error handling of the 2022 Linux series, on every processor',
  },
  'TDH.SYS.CONFIG': {
    does: 'hands over TDMRs, PAMTs, reserved areas and the global KeyID',
    in: 'RCX array of TDMR_INFO addresses, RDX count, R8 KeyID (bit 16: Dynamic PAMT)',
    when: 'bring-up: once, after every processor ran TDH.SYS.LP.INIT',
  },
  'TDH.SERVTD.BIND': { does: 'binds a service TD to a TD', when: MIGRATION },
  'TDH.SERVTD.PREBIND': { does: 'announces the service TD that may bind later', when: MIGRATION },
  'TDH.SYS.SHUTDOWN': {
    does: 'stops the module and leaves handoff data for the next one',
    in: 'RCX handoff version (bit 16: refuse while TDs are at a sensitive step)',
    when: 'module update: the first step',
  },
  'TDH.SYS.UPDATE': {
    does: 'takes over the handoff data of the previous module; TDs go on',
    in: 'version 1: R9 features to enable',
    when: 'module update: the last step, instead of CONFIG, KEY.CONFIG and TDMR.INIT',
  },
  'TDH.PHYMEM.PAMT.ADD': {
    does: 'lends two pages that hold the PAMT entries of a 2 MiB range',
    in: 'RCX 2 MiB-aligned address and level 1, RDX and R8 pages',
    when: 'Dynamic PAMT: before the first 4 KiB page of the range is used',
  },
  'TDH.PHYMEM.PAMT.REMOVE': {
    does: 'takes the two PAMT pages of a 2 MiB range back',
    in: 'RCX 2 MiB-aligned address and level 1',
    out: 'RDX, R8 pages',
    when: 'Dynamic PAMT: after the last 4 KiB page of the range was freed',
  },
  'TDH.EXPORT.ABORT': { does: 'gives an export up; the source TD goes on', when: MIGRATION },
  'TDH.EXPORT.BLOCKW': { does: 'blocks writes to pages that will be exported', when: MIGRATION },
  'TDH.EXPORT.RESTORE': { does: 'undoes the export state of pages', when: MIGRATION },
  'TDH.EXPORT.MEM': { does: 'exports pages', when: MIGRATION },
  'TDH.SYS.DISABLE': {
    does: 'stops the module and gives all its memory back',
    when: 'kexec and crash kernels, repeated until it is through; old modules lack it',
  },
  'TDH.EXPORT.PAUSE': { does: 'pauses the source TD', when: MIGRATION },
  'TDH.EXPORT.TRACK': { does: 'starts an export epoch', when: MIGRATION },
  'TDH.EXPORT.STATE.IMMUTABLE': { does: 'exports what a TD never changes', when: MIGRATION },
  'TDH.EXPORT.STATE.TD': { does: 'exports the state of the TD', when: MIGRATION },
  'TDH.EXPORT.STATE.VP': { does: 'exports the state of a VCPU', when: MIGRATION },
  'TDH.EXPORT.UNBLOCKW': { does: 'lets the TD write to a page again', when: MIGRATION },
  'TDH.IMPORT.ABORT': { does: 'gives an import up', when: MIGRATION },
  'TDH.IMPORT.END': { does: 'ends an import', when: MIGRATION },
  'TDH.IMPORT.COMMIT': { does: 'commits an import: the TD may run here', when: MIGRATION },
  'TDH.IMPORT.MEM': { does: 'imports pages', when: MIGRATION },
  'TDH.IMPORT.TRACK': { does: 'starts an import epoch', when: MIGRATION },
  'TDH.IMPORT.STATE.IMMUTABLE': { does: 'imports what a TD never changes', when: MIGRATION },
  'TDH.IMPORT.STATE.TD': { does: 'imports the state of the TD', when: MIGRATION },
  'TDH.IMPORT.STATE.VP': { does: 'imports the state of a VCPU', when: MIGRATION },
  'TDH.MIG.STREAM.CREATE': { does: 'creates a migration stream', in: 'RCX page, RDX TDR', when: MIGRATION },
};

/** Groups of host leaves of TDX Connect, by the start of their name. @internal */
export const CONNECT_GROUPS: readonly (readonly [prefix: string, note: LeafNote])[] = [
  ['TDH.IOMMU.', { does: 'reads or sets up a trusted IOMMU', when: CONNECT }],
  ['TDH.SPDM.', { does: 'opens or closes the secure session with a device', when: CONNECT }],
  ['TDH.IDE.', { does: 'works on an encrypted link to a device', when: CONNECT }],
  ['TDH.DEVIF.', { does: 'works on a device interface that a TD may own', when: CONNECT }],
  ['TDH.DMAR.', { does: 'works on the DMA remapping of a trusted device', when: CONNECT }],
  ['TDH.MMIO.', { does: 'maps device registers into a TD', when: CONNECT }],
  ['TDH.IQ.', { does: 'works on the invalidation queue of a trusted IOMMU', when: CONNECT }],
  ['TDH.MEM.SHARED.', { does: 'writes the shared part of the EPT for trusted devices', when: CONNECT }],
];
