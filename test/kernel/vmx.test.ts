import { describe, expect, it } from 'vitest';
import { PAGE_4K } from '../../src/abi/address.ts';
import { KernelError } from '../../src/abi/errno.ts';
import { PageAllocator } from '../../src/kernel/allocator.ts';
import { Cpu } from '../../src/kernel/cpu.ts';
import { memblockFromFirmware } from '../../src/kernel/memblock.ts';
import { getVmx, prepareVmx, putVmx } from '../../src/kernel/vmx.ts';
import { Machine } from '../../src/machine/machine.ts';
import { MSR } from '../../src/machine/platform.ts';
import { TINY } from './tiny-machine.ts';

function prepared(): Cpu {
  const machine = new Machine(TINY);
  const cpu = new Cpu(machine.lps[2]!);
  prepareVmx(cpu, new PageAllocator(memblockFromFirmware(TINY.e820, TINY.srat)));
  return cpu;
}

function refusal(cpu: Cpu): string {
  try {
    getVmx(cpu);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    return `${error.errno} ${error.reason.code}`;
  }
  return 'not refused';
}

const state = ({ lp, vmxRefs }: Cpu): readonly unknown[] => [lp.vmxOperation, lp.cr4Vmxe, vmxRefs];

describe('VMX operation', () => {
  it('has a region on the node of its CPU that begins with the revision', () => {
    const cpu = prepared();
    const address = cpu.vmxonRegionPfn! * PAGE_4K;
    expect(TINY.srat.find(({ start, end }) => start <= address && address < end)!.node).toBe(cpu.lp.node);
    const revision = new DataView(cpu.lp.load(address, 4).buffer).getUint32(0, true);
    expect(revision).toBe(Number(cpu.lp.rdmsr(MSR.VMX_BASIC) & 0x7fff_ffffn));
  });

  it('begins with its first user and ends with its last', () => {
    const cpu = prepared();
    getVmx(cpu);
    getVmx(cpu);
    expect(state(cpu)).toEqual([true, true, 2]);
    putVmx(cpu);
    expect(state(cpu)).toEqual([true, true, 1]);
    putVmx(cpu);
    expect(state(cpu)).toEqual([false, false, 0]);
    expect(() => putVmx(cpu)).toThrow(/without being held/);
  });

  it('is refused with everything as it was', () => {
    const faulting = prepared();
    faulting.lp.vmxOperation = true;
    expect([refusal(faulting), faulting.lp.cr4Vmxe, faulting.vmxRefs]).toEqual([
      'EFAULT vmxon-fault',
      false,
      0,
    ]);
    const taken = prepared();
    taken.lp.cr4Vmxe = true;
    expect([refusal(taken), ...state(taken)]).toEqual(['EBUSY vmx-in-use', false, true, 0]);
    const without = prepared();
    without.vmxonRegionPfn = null;
    expect([refusal(without), ...state(without)]).toEqual([
      'EOPNOTSUPP vmxon-region-missing',
      false,
      false,
      0,
    ]);
    const old = prepared();
    const [eax, ebx, ecx, edx] = old.lp.cpuid(1);
    old.lp.machine.cpuid.set('1.*', [eax, ebx, ecx & ~(1 << 5), edx]);
    expect([refusal(old), ...state(old)]).toEqual(['EOPNOTSUPP vmx-unsupported', false, false, 0]);
  });
});
