/**
 * Every place in the TDX host path that gives an errno (Linux host rules 1.1 to 1.13, 2.1, 2.2, 3.2 to 3.6), with
 * cause and remedy; the places of bring-up first.
 */
import type { ErrnoName } from '../../abi/errno.ts';
import type { Case } from './explanation.ts';

type Place = Required<Case>;

/** @internal */
export const ERRNO_PLACES: Readonly<Record<ErrnoName, readonly Place[]>> = {
  EPERM: [
    {
      where: 'onlining a memory block (echo online, daxctl, kmem)',
      cause: 'the block was not in the memory list when TDX initialised, so the hot-plug notifier refuses it',
      remedy:
        'make the memory present at boot, use it as device dax without onlining it, or boot without TDX; the ' +
        'kernel gives no reason with it',
    },
  ],
  ENOENT: [
    {
      where: 'reading the TDX tree in sysfs',
      cause: 'there is no such file; some exist only once the module is initialised or has a feature',
      remedy: 'list the directory above it',
    },
    {
      where: 'KVM_PRE_FAULT_MEMORY',
      cause: 'the guest address lies in no memory slot',
      remedy: 'create the slot first',
    },
  ],
  EINTR: [
    {
      where: 'KVM_TDX_INIT_MEM_REGION, fallocate on guest_memfd, KVM_PRE_FAULT_MEMORY',
      cause: 'a signal came in; the structure says how far it got',
      remedy: 'call again with the structure as it was returned',
    },
  ],
  EIO: [
    {
      where: 'bring-up: any SEAMCALL',
      cause:
        'the module answered with a status that is neither success nor one of the three software statuses',
      remedy: 'the line before says SEAMCALL (leaf) failed: status; explain that line',
    },
    {
      where: 'KVM_TDX_INIT_VM',
      cause: 'a package has no online CPU, so the key of the TD cannot be set up there',
      remedy: 'bring a CPU of every package online',
    },
    {
      where: 'any ioctl on a TD after a failure',
      cause:
        'KVM marked the VM as broken: an unexpected status, or the guest touched memory before accepting it',
      remedy: 'destroy the VM; the first failing line in the log is the cause',
    },
    {
      where: 'KVM_TDX_CAPABILITIES',
      cause: 'the module and KVM have no attribute or no XFAM bit in common',
      remedy: 'update the module or the kernel',
    },
    {
      where: 'KVM_CREATE_VCPU on a TD',
      cause: 'KVM_TDX_INIT_VM was not called before',
      remedy: 'initialise the TD first',
    },
  ],
  ENXIO: [
    {
      where: 'reading tdx_host/version',
      cause: 'the module is not initialised',
      remedy: 'look in the kernel log for why bring-up failed',
    },
  ],
  E2BIG: [
    {
      where: 'KVM_TDX_CAPABILITIES, KVM_TDX_GET_CPUID, KVM_TDX_INIT_VM',
      cause: 'the CPUID array is smaller than the module has entries, or longer than 256',
      remedy: 'give room for NUM_CPUID_CONFIG entries',
    },
  ],
  EBADF: [
    {
      where: 'creating a memory slot with private memory',
      cause: 'the number given for the guest_memfd is no open file',
      remedy: 'pass the file descriptor that KVM_CREATE_GUEST_MEMFD returned',
    },
  ],
  EAGAIN: [
    {
      where: 'KVM_TDX_INIT_VM',
      cause: 'TDH.MNG.CREATE or TDH.MNG.ADDCX found no random numbers (TDX_RND_NO_ENTROPY) after ten tries',
      remedy: 'call again',
    },
    {
      where: 'converting guest memory to private',
      cause: 'somebody still holds references to the pages (pinned I/O, a mapping in use)',
      remedy: 'drop the references, then convert again from the offset returned',
    },
    {
      where: 'KVM_PRE_FAULT_MEMORY',
      cause: 'the memory slot is being deleted',
      remedy: 'call again',
    },
  ],
  ENOMEM: [
    {
      where: 'bring-up: PAMT allocation',
      cause:
        'no run of contiguous pages is long enough: the PAMTs of one TDMR come from one allocation of 1/256 of ' +
        'its size, and memory is fragmented or the node is small',
      remedy:
        'initialise at boot rather than at first use, free or compact memory (echo 1 > /proc/sys/vm/compact_memory), ' +
        'or use a module and kernel with Dynamic PAMT',
    },
    {
      where: 'bring-up: TDMR list, SYS.CONFIG buffer, VMXON region',
      cause: 'the page allocator had nothing left',
      remedy: 'free memory, reboot',
    },
    {
      where: 'building a TD',
      cause: 'pages for control structures, secure EPT or guest_memfd ran out',
      remedy: 'free memory on the node, or lower the size of the TD',
    },
  ],
  EACCES: [
    {
      where: 'bring-up: any SEAMCALL',
      cause: 'the CPU raised #UD: it is not in VMX operation (TDX_SEAMCALL_UD)',
      remedy: 'enter VMX operation on every CPU first; with older kernels load kvm_intel before TDX is used',
    },
    {
      where: 'writing a file of the TDX tree in sysfs',
      cause: 'the file only reports, it sets nothing',
      remedy: 'write to the policy files, which are writable',
    },
  ],
  EFAULT: [
    {
      where: 'bring-up: entering VMX operation',
      cause: 'VMXON faulted: VMX is locked off by the firmware (IA32_FEATURE_CONTROL) or the hypervisor',
      remedy: 'turn VMX on in the BIOS',
    },
    {
      where: 'KVM ioctls of a TD',
      cause: 'a pointer from user space is not mapped',
      remedy: 'check the address passed',
    },
    {
      where: 'KVM_RUN with exit KVM_EXIT_MEMORY_FAULT',
      cause: 'the guest touched private memory that is shared in the slot, or the other way round',
      remedy: 'convert the range as the flags of the exit say, then run again',
    },
  ],
  EBUSY: [
    {
      where: 'taking a CPU offline',
      cause:
        'it is the last online CPU of its package while TDs exist; the keys of that package could not be freed',
      remedy: 'stop all TDs first, or keep one CPU of the package online',
    },
    {
      where: 'bring-up: entering VMX operation',
      cause: 'somebody else holds VMX on this CPU (CR4.VMXE is set): another hypervisor',
      remedy: 'unload it',
    },
    {
      where: 'KVM_TDX_INIT_VM',
      cause: 'VCPUs exist already, or the misc cgroup has no tdx KeyID left to charge',
      remedy: 'initialise the TD before its VCPUs; raise misc.max',
    },
    {
      where: 'KVM_TDX_FINALIZE_VM',
      cause: 'TDH.MR.FINALIZE found the TD busy',
      remedy: 'call again when no other thread works on the TD',
    },
  ],
  EEXIST: [
    {
      where: 'creating a memory slot',
      cause: 'its guest addresses, or its part of the guest_memfd, belong to another slot',
      remedy: 'delete the other slot first',
    },
  ],
  ENODEV: [
    {
      where: 'bring-up: the first SEAMCALL',
      cause:
        'no TDX module is loaded (VMFailInvalid): the SEAM loader is off in the BIOS, or found no module image',
      remedy: 'turn the TDX SEAM loader on in the BIOS and give it a module image; boot cold',
    },
    {
      where: 'bring-up: platform checks',
      cause: 'the firmware did not enable TDX (no private KeyIDs), or the CPU lacks self-snoop',
      remedy:
        'turn TME, TME-MT, TDX, SEAM loader and SGX on in the BIOS; leave KeyIDs to TDX in the key split',
    },
    {
      where: 'loading kvm_intel with tdx=1',
      cause: 'the module did not initialise at boot; KVM loads without TDX',
      remedy: 'look in the kernel log for why bring-up failed',
    },
    {
      where: 'mmap of a guest_memfd',
      cause: 'it was created without the MMAP flag',
      remedy: 'create it with GUEST_MEMFD_FLAG_MMAP where the kernel allows it for this VM type',
    },
  ],
  EINVAL: [
    {
      where: 'bring-up: platform checks',
      cause: 'the CPU lacks XSAVE or MOVDIR64B, or they were turned off (clearcpuid=, noxsave)',
      remedy: 'remove the kernel option',
    },
    {
      where: 'bring-up: feature check',
      cause: 'the module lacks NO_RBP_MOD: TD entry would destroy the frame pointer',
      remedy: 'update the TDX module; `tdxlab modules` shows which releases have it',
    },
    {
      where: 'bring-up: metadata',
      cause: 'the module reports more than 128 CPUID configuration entries',
      remedy: 'use a kernel that knows this module',
    },
    {
      where: 'bring-up: key configuration',
      cause: 'no online CPU was found to run TDH.SYS.KEY.CONFIG on',
      remedy: 'keep a CPU of every package online',
    },
    {
      where: 'bring-up: reserved areas',
      cause: 'a hole is not made of whole 4 KiB pages, which the memory map should never give',
      remedy: 'drop memmap= options; report the memory map',
    },
    {
      where: 'bring-up again after a failure (kernels with tdx_enable)',
      cause: 'the outcome of the first try is remembered; it is never repeated',
      remedy: 'reboot',
    },
    {
      where: 'loading kvm_intel with tdx=1',
      cause:
        'the module lacks TOPOLOGY_ENUM, allows fewer VCPUs per TD than the host has processors, or shares no ' +
        'attributes or XFAM with KVM',
      remedy: 'update the module',
    },
    {
      where: 'KVM_TDX_INIT_VM',
      cause:
        'attributes, XFAM or a CPUID entry that the module does not let the host configure, a guest address width ' +
        'other than 48 or 52, or reserved fields set; hw_error holds the status of TDH.MNG.INIT where that refused',
      remedy:
        'take attributes, XFAM and CPUID from KVM_TDX_CAPABILITIES; turn TSX and WAITPKG off in the CPU model',
    },
    {
      where: 'KVM_TDX_INIT_MEM_REGION, KVM_TDX_INIT_VCPU, KVM_TDX_FINALIZE_VM',
      cause: 'called out of order: the TD has no KeyID, is runnable already, or the range is not private',
      remedy: 'INIT_VM, INIT_VCPU, mark memory private, INIT_MEM_REGION, FINALIZE_VM',
    },
    {
      where: 'module update through firmware upload',
      cause: 'bad header, length, version or signature of the image, or a CPU with the SEAMRET bug',
      remedy: 'check the image; on such CPUs the module changes only at boot',
    },
  ],
  ENOTTY: [
    {
      where: 'KVM_MEMORY_ENCRYPT_OP',
      cause: 'the VM is no TD',
      remedy: 'create the VM with type KVM_X86_TDX_VM',
    },
  ],
  ENOSPC: [
    {
      where: 'bring-up: reserved areas exhausted',
      cause:
        'one TDMR needs more reserved areas than the module allows (usually 16): the firmware cut low memory into ' +
        'many pieces (ACPI data, NVS, reserved), and each hole takes one area, each PAMT in the TDMR another',
      remedy:
        'use a kernel that takes holes from CMRs, ask for a BIOS with fewer splinters below 2 GiB, or leave the ' +
        'splintered memory out with memmap=; `tdxlab plan` lists the holes and what helps',
    },
    {
      where: 'bring-up: TDMRs exhausted',
      cause: 'the memory list has more ranges than the module has TDMRs (usually 64)',
      remedy: 'have fewer, larger ranges: undo node emulation and memmap= options, or merge them in the BIOS',
    },
    {
      where: 'KVM_TDX_INIT_VM: KeyIDs exhausted',
      cause: 'every guest KeyID belongs to a TD; one of the private KeyIDs is the global one',
      remedy: 'stop a TD, or give TDX more KeyIDs in the BIOS key split; leaked KeyIDs come back by reboot',
    },
  ],
  ENOTDIR: [
    {
      where: 'reading the TDX tree in sysfs',
      cause: 'the path goes on below a file',
      remedy: 'list the tree without a path first',
    },
  ],
  EISDIR: [
    {
      where: 'reading the TDX tree in sysfs',
      cause: 'the path names a directory',
      remedy: 'name a file in it',
    },
  ],
  EROFS: [
    {
      where: 'writing any file below /sys, or uploading a module',
      cause: '/sys is mounted read-only, as in most containers',
      remedy: 'write from the host itself',
    },
  ],
  EOPNOTSUPP: [
    {
      where: 'bring-up: any SEAMCALL',
      cause: 'the CPU raised #GP: the SEAM range is not enabled (TDX_SEAMCALL_GP)',
      remedy: 'turn TDX and its SEAM loader on in the BIOS; boot cold',
    },
    {
      where: 'bring-up: entering VMX operation',
      cause: 'the CPU or the hypervisor below has no VMX',
      remedy: 'a TDX host needs the real hardware with VMX on',
    },
    {
      where: 'fallocate on guest_memfd',
      cause: 'a mode other than allocation or hole punching with KEEP_SIZE',
      remedy: 'use mode 0 or PUNCH_HOLE with KEEP_SIZE',
    },
    {
      where: 'KVM_TDX_INIT_MEM_REGION without a source page; KVM_PRE_FAULT_MEMORY before finalisation',
      cause: 'the kernel does not support it',
      remedy: 'give a source; finalise first',
    },
  ],
  EMFILE: [
    {
      where: 'KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_CREATE_GUEST_MEMFD, open, memfd_create',
      cause:
        'the process has as many descriptors as its limit allows (RLIMIT_NOFILE); a VM needs one per vCPU and file',
      remedy: 'raise the limit, or close what is not needed',
    },
  ],
  EFBIG: [
    {
      where: 'fallocate on guest_memfd or memfd',
      cause: 'offset and length end beyond the largest file offset, 2^63 - 1',
      remedy: 'give a range inside the file',
    },
  ],
  ESPIPE: [
    {
      where: 'pread and pwrite on guest_memfd, VM or vCPU descriptors',
      cause: 'such files have no contents that user space reads or writes at a position',
      remedy: 'map the file, where it was created with the MMAP flag',
    },
  ],
  ENAMETOOLONG: [
    {
      where: 'open',
      cause: 'the path has 4096 bytes or more',
      remedy: 'open /dev/kvm',
    },
  ],
  EOVERFLOW: [
    {
      where: 'mmap of guest_memfd, vCPU or memfd descriptors',
      cause: 'offset and length end beyond the largest file offset',
      remedy: 'give an offset inside the file',
    },
  ],
  EHWPOISON: [
    {
      where: 'KVM_RUN, KVM_PRE_FAULT_MEMORY',
      cause: 'the memory behind a private page has failed',
      remedy: 'punch a hole over the page and let the guest accept a new one, or end the guest',
    },
  ],
};
