/** What each guest leaf is for (module facts 9), and P-SEAMLDR's leaves (Linux host rules 1.6 and 1.12). */
import type { LeafNote } from './leaf-notes.ts';

const PARTITIONING = 'a TD that runs L2 VMs';
const CONNECT = 'TDX Connect (2.x modules)';

/** Guest leaves (TDCALL), by ABI name. @internal */
export const GUEST_LEAF_NOTES: Readonly<Record<string, LeafNote>> = {
  'TDG.VP.VMCALL': {
    does: 'asks the host for a service',
    in: 'RCX which registers the host sees',
    out: 'the registers chosen, as the host answered',
    when: 'port and MSR access, CPUID, HLT, quotes, conversion of memory',
  },
  'TDG.VP.INFO': {
    does: 'tells a TD about itself',
    out: 'RCX guest address width, RDX attributes, R8 VCPUs, R9 index',
    when: 'the first TDCALL of firmware and kernel',
  },
  'TDG.MR.RTMR.EXTEND': {
    does: 'extends a run-time measurement register',
    in: 'RCX 64-byte-aligned data, RDX register 0 to 3',
    when: 'firmware and boot loader measure what they start',
  },
  'TDG.VP.VEINFO.GET': {
    does: 'reads and clears the information on a #VE',
    out: 'RCX exit reason, RDX qualification, R8 linear address, R9 guest address, R10 instruction',
    when: 'first thing in the #VE handler',
  },
  'TDG.MR.REPORT': {
    does: 'makes a TDREPORT',
    in: 'RCX buffer of 1 KiB, RDX 64 bytes of report data, R8 0',
    when: 'attestation',
  },
  'TDG.VP.CPUIDVE.SET': { does: 'asks for #VE on CPUID', in: 'RCX bit 0 supervisor, bit 1 user' },
  'TDG.MEM.PAGE.ACCEPT': {
    does: 'accepts a pending page',
    in: 'RCX guest address and level',
    when: 'before memory that the host added is used',
  },
  'TDG.VM.RD': { does: 'reads a metadata field of the TD', in: 'RDX field id', out: 'R8 value' },
  'TDG.VM.WR': {
    does: 'writes a metadata field of the TD',
    in: 'RDX field id, R8 value, R9 mask',
    out: 'R8 old value',
    when: 'the kernel turns #VE on pending pages off',
  },
  'TDG.VP.RD': { does: 'reads a metadata field of the VCPU', in: 'RDX field id', out: 'R8 value' },
  'TDG.VP.WR': { does: 'writes a metadata field of the VCPU', in: 'RDX field id, R8 value, R9 mask' },
  'TDG.SYS.RD': { does: 'reads a global metadata field', in: 'RDX field id', out: 'RDX next id, R8 value' },
  'TDG.SYS.RDALL': { does: 'reads all global metadata fields', in: 'RDX buffer, R8 first field id' },
  'TDG.SERVTD.RD': { does: 'reads a field of the TD that is served', when: 'a migration TD' },
  'TDG.SERVTD.WR': { does: 'writes a field of the TD that is served', when: 'a migration TD' },
  'TDG.MR.VERIFYREPORT': { does: 'verifies a report made on this machine', in: 'RCX the report' },
  'TDG.MEM.PAGE.ATTR.RD': { does: 'reads what L2 VMs may do with a page', when: PARTITIONING },
  'TDG.MEM.PAGE.ATTR.WR': { does: 'sets what L2 VMs may do with a page', when: PARTITIONING },
  'TDG.VP.ENTER': { does: 'enters an L2 VM', when: PARTITIONING },
  'TDG.VP.INVEPT': { does: 'invalidates translations of an L2 VM', when: PARTITIONING },
  'TDG.VP.INVVPID': { does: 'invalidates linear translations of an L2 VM', when: PARTITIONING },
  'TDG.SPDM.TPA.SET': { does: 'names the agent of the session with devices', when: CONNECT },
  'TDG.SPDM.TPA.GET': { does: 'reads the agent of the session with devices', when: CONNECT },
  'TDG.DEVIF.VALIDATE': { does: 'takes a device interface as trusted', when: CONNECT },
  'TDG.DEVIF.RD': { does: 'reads the state of a device interface', when: CONNECT },
  'TDG.DEVIF.REQUEST': { does: 'sends a request to a device interface', when: CONNECT },
  'TDG.DEVIF.RESPONSE': { does: 'takes the answer of a device interface', when: CONNECT },
  'TDG.DMAR.ACCEPT': { does: 'accepts the DMA remapping of a device', when: CONNECT },
  'TDG.MMIO.ACCEPT': { does: 'accepts device registers', when: CONNECT },
  'TDG.IQ.INV.REQUEST': { does: 'asks for an invalidation', when: CONNECT },
};

/** P-SEAMLDR leaves, by ABI name. @internal */
export const SEAMLDR_LEAF_NOTES: Readonly<Record<string, LeafNote>> = {
  'SEAMLDR.INFO': {
    does: 'writes version, module identity and remaining updates to memory',
    in: 'RCX buffer of 256 bytes, aligned to 256',
    when: 'the version files in sysfs, one processor at a time',
  },
  'SEAMLDR.INSTALL': {
    does: 'loads a TDX module, or replaces the one that was shut down',
    in: 'RCX parameter page of 4 KiB: scenario, signature, up to 496 module pages',
    when: 'module update: on every processor, one after the other',
  },
};
