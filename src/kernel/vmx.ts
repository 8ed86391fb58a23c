/** VMX operation as a resource with users: VMXON with a CPU's first, VMXOFF with its last (Linux host rules 1.2). */
import { PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { CpuException } from '../machine/exceptions.ts';
import { MSR } from '../machine/platform.ts';
import type { PageAllocator } from './allocator.ts';
import type { Cpu } from './cpu.ts';

/** CPUID leaf 1, ECX bit 5. */
const CPUID1_ECX_VMX = 1 << 5;
/** VMX_BASIC bits 30:0: revision identifier that heads every VMXON region. */
const VMX_REVISION_MASK = 0x7fff_ffffn;

/** Gives `cpu` its VMXON region, on its own node where that has memory; without one VMX stays unavailable. @public */
export function prepareVmx(cpu: Cpu, allocator: PageAllocator): void {
  const pfn = allocator.allocPages(0, { node: cpu.lp.node, purpose: 'vmxon-region' });
  if (pfn === null) return;
  const region = new Uint8Array(PAGE_4K);
  const revision = Number(cpu.lp.rdmsr(MSR.VMX_BASIC) & VMX_REVISION_MASK);
  new DataView(region.buffer).setUint32(0, revision, true);
  cpu.lp.store(pfn * PAGE_4K, region);
  cpu.vmxonRegionPfn = pfn;
}

/**
 * Takes a reference to VMX operation on `cpu`. Throws EOPNOTSUPP where the CPU or its VMXON region is missing,
 * EBUSY when something else set CR4.VMXE, EFAULT when VMXON faults.
 * @public
 */
export function getVmx(cpu: Cpu): void {
  const { lp } = cpu;
  if (cpu.vmxRefs > 0) {
    cpu.vmxRefs++;
    return;
  }
  const data = { cpu: cpu.index };
  if ((lp.cpuid(1)[2] & CPUID1_ECX_VMX) === 0) {
    throw new KernelError('EOPNOTSUPP', 'vmx-unsupported', `CPU ${cpu.index} has no VMX`, data);
  }
  if (cpu.vmxonRegionPfn === null) {
    throw new KernelError(
      'EOPNOTSUPP',
      'vmxon-region-missing',
      `CPU ${cpu.index} has no VMXON region: its allocation failed at boot`,
      data,
    );
  }
  if (lp.cr4Vmxe) {
    throw new KernelError('EBUSY', 'vmx-in-use', `CPU ${cpu.index} has CR4.VMXE set by somebody else`, data);
  }
  lp.cr4Vmxe = true;
  try {
    lp.vmxon();
  } catch (exception) {
    if (!(exception instanceof CpuException)) throw exception;
    lp.cr4Vmxe = false;
    throw new KernelError(
      'EFAULT',
      'vmxon-fault',
      `VMXON faulted on CPU ${cpu.index}: ${exception.message}`,
      data,
    );
  }
  cpu.vmxRefs = 1;
}

/** Drops a reference; the last one leaves VMX operation. @public */
export function putVmx(cpu: Cpu): void {
  if (cpu.vmxRefs === 0) throw new Error('VMX reference dropped without being held');
  if (--cpu.vmxRefs > 0) return;
  cpu.lp.vmxoff();
  cpu.lp.cr4Vmxe = false;
}
