/** What is kept of files that hold more than is needed, and may hold what is nobody's business. */
import { CXL_MEMORY, CXL_WINDOW, E820_TYPE_OF_RESOURCE } from '../iomem-reader.ts';
import { LOG_RULES } from '../log-rules.ts';

/** Keeps of a text what is needed. Applied again it changes nothing. @internal */
export type Keep = (text: string) => string;

function keepLines(text: string, wanted: (line: string, index: number) => boolean): string {
  const kept = text.split('\n').filter((line, i) => wanted(line, i));
  return kept.length === 0 ? '' : `${kept.join('\n')}\n`;
}

/** Fields of every processor, and those that only the first one's block need have. */
const EACH = /^(?:processor|physical id|core id|apicid)\s*:/;
const FIRST =
  /^(?:vendor_id|cpu family|model|model name|stepping|microcode|flags|bugs|vmx flags|address sizes)\s*:/;

/** @internal */
export const keepCpuinfo: Keep = (text) => {
  const blocks = text.split(/\n\s*\n/);
  return blocks
    .map((block, i) => keepLines(block, (line) => EACH.test(line) || (i === 0 && FIRST.test(line))))
    .filter((block) => block !== '')
    .join('\n');
};

/** Options that decide on TDX, on the memory a kernel sees, on its processors and on hibernation. */
const OPTIONS =
  /^(?:nohibernate|hibernate|kvm(?:[-_]\w+)?\.\w+|use_tdx|tdx(?:_\w+)?|memmap|mem|maxcpus|nr_cpus|possible_cpus|nosmp|nosmt|numa|efi_fake_mem|clearcpuid|noxsave|nox2apic|noapic|nolapic|crashkernel|movable_node|memhp_default_state|memory_hotplug\.\w+|cgroup_disable|cgroup_no_v1|lockdown|mce|nomce)(?:=|$)/;

/** Values of options are left alone; what follows `--` is the first program's. @internal */
export const keepCommandLine: Keep = (text) => {
  const words = text.trim().split(/\s+/);
  const end = words.indexOf('--');
  return words
    .slice(0, end < 0 ? words.length : end)
    .filter((word) => OPTIONS.test(word))
    .join(' ');
};

/** Options of the kernel's configuration that TDX depends on. */
const CONFIG =
  /^(?:# )?CONFIG_(?:INTEL_TDX_HOST|INTEL_TDX_GUEST|TDX_GUEST_DRIVER|TDX_HOST_SERVICES|KVM|KVM_INTEL|KVM_INTEL_TDX|X86_X2APIC|CONTIG_ALLOC|X86_MCE|X86_SGX|X86_MSR|HIBERNATION|SUSPEND|CGROUP_MISC|MEMORY_HOTPLUG|KEXEC_CORE)[= ]/;

/** @internal */
export const keepConfig: Keep = (text) => keepLines(text, (line) => CONFIG.test(line));

/** @internal */
export const keepModprobe: Keep = (text) =>
  keepLines(text, (line) =>
    /^\s*(?:options|blacklist|install)\s+kvm(?:[-_](?:intel|amd))?(?:\s|$)/.test(line),
  );

/** Memory, without the devices between it. @internal */
export const keepIomem: Keep = (text) =>
  keepLines(text, (line) => {
    const name = / : (.*)/.exec(line)?.[1]?.trimEnd() ?? '';
    return Object.hasOwn(E820_TYPE_OF_RESOURCE, name) || CXL_WINDOW.test(name) || CXL_MEMORY.test(name);
  });

/** A memory block is only worth a word when it is not in use. @internal */
export const keepNotOnline: Keep = (text) => (text.trim() === 'online' ? '' : text);

/** Where a message begins: after syslog's level, journald's time, host and `kernel:`, before the kernel's time. */
const BEFORE_MESSAGE = /^(?:<\d+>)?(?:[^[]*? kernel: )?/;
/** Messages of the kernel's own that tell of TDX, KVM, memory encryption and hibernation, by how they begin. */
const MESSAGES =
  /^(?:\[[^\]]*\] )?(?:(?:virt\/|x86\/)?tdx: |seamcall\b|kvm[-_]intel: |x86\/(?:mk)?tme\b|(?:mk)?tme: |sgx: |Hypervisor detected|Memory Encryption Features|x86\/cpu: VMX|kvm: disabled by bios|PM: hibernation: |Kernel is locked down|Booting paravirtualized)/i;

/** The kernel's own lines are shorter; only a command line comes near. */
const MAX_LINE = 4096;

/** What a line of a log is cut down to; undefined for one that is not kept. */
function keepLogLine(line: string): string | undefined {
  const message = line.slice(0, MAX_LINE).replace(BEFORE_MESSAGE, '');
  const banner = /^(\[[^\]]*\] )?.*(Linux version \S+)/.exec(message);
  if (banner !== null) return `${banner[1] ?? ''}${banner[2]}`;
  const command = /^(.*?(?:Kernel c|C)ommand line: )(.*)/.exec(message);
  if (command !== null) return `${command[1]}${keepCommandLine(command[2]!)}`;
  const told = LOG_RULES.some(({ word, pattern }) => message.includes(word) && pattern.test(message));
  return told || MESSAGES.test(message) ? message : undefined;
}

/** @internal */
export const keepLog: Keep = (text) => {
  const kept = text.split(/\r?\n/).map(keepLogLine);
  const lines = kept.filter((line) => line !== undefined);
  return lines.length === 0 ? '' : `${lines.join('\n')}\n`;
};
