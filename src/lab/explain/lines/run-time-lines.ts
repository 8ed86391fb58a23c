/** Lines of SEAMCALL failures, KVM, hot-plug, machine checks, kexec and guests (Linux host rules 1.10b). */
import type { LogLine } from './log-line.ts';

const HEX = '0x[0-9a-f]+';

/** @internal */
export const RUN_TIME_LINES: readonly LogLine[] = [
  {
    name: 'a SEAMCALL failed',
    pattern: new RegExp(`SEAMCALL \\(?(?<leaf>${HEX}|\\d+)\\)? failed:? ?(?<status>${HEX})`, 'i'),
    says: 'The kernel called the module and got an error back; during bring-up that ends it with -5 (EIO).',
    cases: [],
  },
  {
    name: 'a SEAMCALL failed',
    pattern: new RegExp(
      `SEAMCALL failed: CPU (?<cpu>\\d+): leaf (?<leaf>\\d+), error (?<status>${HEX})`,
      'i',
    ),
    says: 'The kernel called the module on CPU {cpu} and got an error back; during bring-up that ends it with -5 (EIO).',
    cases: [],
  },
  {
    name: 'a KeyID is lost',
    pattern: /(?:(?<leaf>TDH[._][A-Z_.]*[A-Z]).*)?HKID (?<hkid>\d+) (?:is |was )?leaked/i,
    says: 'KeyID {hkid} could not be freed and stays unusable until the next boot; one TD fewer fits.',
    cases: [
      {
        cause: 'Flushing VCPUs or freeing the KeyID failed while a TD was destroyed.',
        remedy:
          'Note the status in the line before; keep all CPUs online while TDs end; reboot to get it back.',
      },
    ],
  },
  {
    name: 'a VCPU field could not be read or written',
    pattern: new RegExp(
      `(?<leaf>TDH[._]VP[._](?:RD|WR)) ?\\[?(?<class>[\\w.]+)?\\]?.*?failed:? ?(?<status>${HEX})`,
      'i',
    ),
    says: 'KVM could not access the metadata of a VCPU ({class}).',
    cases: [
      {
        cause: 'A field that needs a debug TD, or that this module lacks.',
        remedy: 'Update the module; report it otherwise.',
      },
    ],
  },
  {
    name: 'a SEAMCALL failed',
    pattern: /(?<leaf>TDH[._][A-Z_.]*[A-Z])(?:\(\))? failed[^0-9x]*(?<status>0x[0-9a-f]{8,16})?/i,
    says: 'The kernel called the module and got an error back.',
    cases: [],
  },
  {
    name: 'a P-SEAMLDR call failed',
    pattern: new RegExp(`SEAMLDR.*failed[^0-9x]*(?<seamldr>${HEX})?`, 'i'),
    says: 'The loader of the module refused a call.',
    cases: [
      {
        cause: 'A module update, or reading the loader version, went wrong.',
        remedy: 'Check the image; one processor at a time may call the loader.',
      },
    ],
  },
  {
    name: 'registers after a failed call',
    pattern: /RCX[ =:]*0x[0-9a-f]+.*RDX[ =:]*0x[0-9a-f]+/i,
    says: 'What the module left in its output registers when the call before failed.',
    cases: [
      {
        cause: 'Printed after the SEAMCALL line for leaves with outputs.',
        remedy:
          'For CPUID errors RCX is leaf (bits 31:0) and subleaf; for secure EPT errors RCX is the entry and RDX its ' +
          'level and state.',
      },
    ],
  },
  {
    name: 'memory refused',
    pattern: /Unable to add memory \[(?<start>0x[0-9a-f]+), ?(?<end>0x[0-9a-f]+)\) on TDX/i,
    says: 'The range was not TDX memory when the module initialised, so the kernel keeps it out of the allocator.',
    cases: [
      {
        cause: 'Hot-added, CXL or persistent memory: all RAM of the kernel must be usable for TDs.',
        remedy: 'Use it as device dax, have it present at boot (inside a CMR), or boot without TDX.',
      },
    ],
  },
  {
    name: 'memory refused',
    pattern: /hot-?added memory \[(?<start>0x[0-9a-f]+), ?(?<end>0x[0-9a-f]+)\).*refused/i,
    says: 'The range that was plugged in is not taken: it was not TDX memory when the module initialised.',
    cases: [
      {
        cause: 'All RAM of a TDX host must be usable for TDs, and the module takes TDMRs only once per boot.',
        remedy: 'Have the memory present at boot, or choose another hot-plug policy.',
      },
    ],
  },
  {
    name: 'memory refused',
    pattern: /kmem (?<device>dax[\d.]+): mapping\d+: (?<range>0x[0-9a-f]+-0x[0-9a-f]+) memory add failed/i,
    says: 'The dax driver could not turn {device} into RAM; on a TDX host because it is not TDX memory.',
    cases: [{ cause: 'See the line before it.', remedy: 'Leave the device in devdax mode on a TDX host.' }],
  },
  {
    name: 'poisoned private memory',
    pattern: /TDX private memory error/i,
    says: 'A machine check hit memory that belongs to a TD or to the module.',
    cases: [
      {
        cause:
          'On Sapphire and Emerald Rapids any partial write of the host to private memory poisons it: a kernel or ' +
          'driver bug. Otherwise a real memory error.',
        remedy:
          'The TD is lost. Report the kernel with the backtrace; check the DIMM when it repeats elsewhere.',
      },
    ],
  },
  {
    name: 'CPU of a package missing',
    pattern: /All packages need to have online CPU/i,
    says: 'A TD could not be created: keys are set up per package, and one package has no online CPU.',
    cases: [
      {
        cause: 'CPUs were taken offline, or maxcpus= left a package out.',
        remedy: 'Bring a CPU of every package online.',
      },
    ],
  },
  {
    name: 'CPU must stay online',
    pattern: /packages? (?:to have|must have|needs?|have) an? online CPU/i,
    says: 'A CPU was not taken offline: it is the last one of its package, and TDs exist.',
    cases: [
      {
        cause: 'Freeing a KeyID needs a CPU on every package.',
        remedy: 'Stop all TDs first, or keep one CPU per package.',
      },
    ],
  },
  {
    name: 'memory not accepted',
    pattern: /(?:guest )?access before accepting (?<gpa>0x[0-9a-f]+) on vCPU (?<vcpu>\d+)/i,
    says: 'The guest touched {gpa} without accepting it first; KVM stops the TD.',
    cases: [
      {
        cause: 'Firmware or kernel of the guest missed a range when accepting memory.',
        remedy: 'Update guest firmware and kernel; check lazy acceptance.',
      },
    ],
  },
  {
    name: 'too many CPUs',
    pattern: /MAX_VCPUS?_PER_TD \((?<max>\d+)\) smaller than number of logical CPUs \((?<cpus>\d+)\)/i,
    says: 'kvm_intel turns TDX off: the module allows {max} VCPUs per TD, the host has {cpus} processors.',
    cases: [
      {
        cause: 'A module with a small limit on a large host.',
        remedy: 'Update the module, or turn SMT off in the BIOS.',
      },
    ],
  },
  {
    name: 'KVM lacks a feature',
    pattern:
      /(?:TDX requires |tdx: ?)?(?<feature>EPT|TDP MMU|MMIO caching|A\/D bits|APICv|OSXSAVE)[^.]*(?:is|are|must be) (?:required|not supported|not enabled|disabled|enabled)/i,
    says: 'kvm_intel turns TDX off because it runs without {feature}.',
    cases: [
      {
        cause: 'A module parameter turned it off (ept=0, tdp_mmu=0, enable_apicv=0), or the CPU lacks it.',
        remedy: 'Remove the parameter and load kvm_intel again with tdx=1.',
      },
    ],
  },
  {
    name: 'KVM lacks a feature',
    pattern: /(?:TDX requires )(?<feature>[A-Za-z][\w /]*)/i,
    says: 'kvm_intel turns TDX off because it runs without {feature}.',
    cases: [
      {
        cause: 'A module parameter turned it off, or the CPU lacks it.',
        remedy: 'Remove the parameter and load kvm_intel again with tdx=1.',
      },
    ],
  },
  {
    name: 'user-return MSR missing',
    pattern: /(?:uret|user[- ]return) MSR/i,
    says: 'kvm_intel turns TDX off: an MSR that TDX overwrites cannot be restored.',
    cases: [{ cause: 'An internal list of KVM lacks it.', remedy: 'Use a newer kernel.' }],
  },
  {
    name: 'kexec and TDX',
    pattern: /kexec.*\btdx\b|\btdx\b.*kexec/i,
    says: 'The kernel says how kexec and TDX get on.',
    cases: [
      {
        cause:
          'Private memory cannot be handed to the next kernel as it is; on machines with the erratum kexec is refused.',
        remedy:
          'Use a kernel and a module with TDH.SYS.DISABLE, or boot with TDX off where kdump matters more.',
      },
    ],
  },
  {
    name: 'a guest, not a host',
    pattern: /tdx: Guest detected|Memory Encryption Features active: Intel TDX/i,
    says: 'The log is of a guest inside a TD: it says nothing about the host.',
    cases: [{ cause: 'Taken in the guest.', remedy: 'Run dmesg on the host.' }],
  },
];
