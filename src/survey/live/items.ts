/** Every file of a machine that is read, and what for: the list of what a collection holds. */
import {
  type Keep,
  keepCommandLine,
  keepConfig,
  keepCpuinfo,
  keepIomem,
  keepModprobe,
  keepNotOnline,
} from './keep.ts';

/** Files to read. `*` in the path stands for any part of one name, `{release}` for the kernel's release. @internal */
export interface Item {
  readonly path: string;
  /** What it tells. */
  readonly tells: string;
  /** Where only a part is kept. */
  readonly keep?: Keep;
}

/** The paths of files in one directory. */
function under(directory: string, names: readonly string[], tells: string): Item[] {
  return names.map((name) => ({ path: `${directory}/${name}`, tells }));
}

/** Directories that modprobe reads, the weightiest first. */
const MODPROBE = ['/etc/modprobe.d', '/run/modprobe.d', '/usr/local/lib/modprobe.d', '/usr/lib/modprobe.d'];

/** @internal */
export const ITEMS: readonly Item[] = [
  { path: '/proc/cpuinfo', tells: 'vendor, model, flags and package of processors', keep: keepCpuinfo },
  { path: '/proc/cmdline', tells: 'kernel options that concern TDX', keep: keepCommandLine },
  { path: '/proc/sys/kernel/osrelease', tells: 'release of the kernel' },
  { path: '/proc/config.gz', tells: 'kernel configuration that concerns TDX', keep: keepConfig },
  { path: '/boot/config-{release}', tells: 'kernel configuration that concerns TDX', keep: keepConfig },
  {
    path: '/lib/modules/{release}/config',
    tells: 'kernel configuration that concerns TDX',
    keep: keepConfig,
  },
  { path: '/proc/iomem', tells: 'ranges of memory', keep: keepIomem },
  { path: '/sys/power/disk', tells: 'whether the kernel could hibernate' },
  { path: '/sys/kernel/security/lockdown', tells: 'whether lockdown keeps it from hibernating' },
  ...under(
    '/sys/module/kvm_intel/parameters',
    ['tdx', 'ept', 'eptad', 'enable_apicv'],
    'choices of kvm_intel',
  ),
  ...under('/sys/module/kvm/parameters', ['tdp_mmu', 'mmio_caching'], 'choices of KVM'),
  ...MODPROBE.map((directory) => ({
    path: `${directory}/*.conf`,
    tells: 'options of the KVM modules',
    keep: keepModprobe,
  })),
  ...under(
    '/sys/devices/faux/tdx_host',
    ['version', 'seamldr_version', 'num_remaining_updates'],
    'version of the TDX module and its loader',
  ),
  ...under('/sys/devices/system/cpu', ['possible', 'present', 'online', 'offline'], 'which CPUs are online'),
  { path: '/sys/devices/system/cpu/smt/control', tells: 'whether SMT is on' },
  ...under('/sys/devices/system/node', ['online', 'has_memory', 'has_cpu'], 'nodes'),
  ...under(
    '/sys/devices/system/memory',
    ['block_size_bytes', 'auto_online_blocks'],
    'how memory is added while the host runs',
  ),
  {
    path: '/sys/devices/system/memory/memory*/state',
    tells: 'memory blocks that are not online',
    keep: keepNotOnline,
  },
  ...under('/sys/fs/cgroup', ['misc.capacity', 'misc.current'], 'KeyIDs there are, and in use'),
  ...under('/sys/fs/cgroup/misc', ['misc.capacity', 'misc.current'], 'KeyIDs there are, and in use'),
  { path: '/sys/firmware/acpi/tables/SRAT', tells: 'nodes of memory and processors' },
  { path: '/sys/firmware/acpi/tables/CCEL', tells: 'in a TD: where its event log is' },
  { path: '/sys/firmware/acpi/tables/TDEL', tells: 'in a TD of early firmware: where its event log is' },
  ...under(
    '/sys/class/dmi/id',
    ['sys_vendor', 'product_name', 'bios_vendor', 'bios_version', 'bios_date'],
    'make of the machine and of its BIOS, no serial numbers',
  ),
];

/** Files and devices of which only matters whether they are there and this user may use them. @internal */
export const PRESENCES: readonly string[] = [
  '/dev/kvm',
  '/dev/cpu/0/msr',
  '/dev/tdx_guest',
  '/dev/sgx_enclave',
  '/dev/sgx_provision',
  '/sys/module/kvm',
  '/sys/module/kvm_intel',
  '/sys/module/kvm_amd',
  '/boot/efi/EFI/TDX/TDX-SEAM.so',
  '/boot/efi/EFI/TDX/TDX-SEAM.so.sigstruct',
  '/usr/bin/qemu-system-x86_64',
  '/usr/local/bin/qemu-system-x86_64',
  '/usr/libexec/qemu-kvm',
  '/usr/bin/cloud-hypervisor',
  '/usr/share/ovmf/OVMF.tdx.fd',
  '/usr/share/ovmf/OVMF.inteltdx.fd',
  '/usr/share/edk2/ovmf/OVMF.inteltdx.fd',
  '/usr/share/edk2/ovmf/OVMF.inteltdx.secboot.fd',
  '/usr/share/qemu/ovmf-x86_64-tdx.bin',
  '/usr/share/ovmf/OVMF.fd',
];
