import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_4K } from '../../src/abi/address.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { RAX } from '../../src/abi/registers.ts';
import { PageAllocator } from '../../src/kernel/allocator.ts';
import { allocTdmrList, freeTable } from '../../src/kernel/config.ts';
import { Cpu } from '../../src/kernel/cpu.ts';
import { memblockFromFirmware } from '../../src/kernel/memblock.ts';
import { resetPamts, shutDownModule, UndoStack } from '../../src/kernel/undo.ts';
import { getVmx, prepareVmx } from '../../src/kernel/vmx.ts';
import { Machine } from '../../src/machine/machine.ts';
import { TINY } from './tiny-machine.ts';

function kernelParts() {
  const machine = new Machine(TINY);
  const allocator = new PageAllocator(memblockFromFirmware(TINY.e820, TINY.srat));
  const cpus = machine.lps.map((lp) => new Cpu(lp));
  for (const cpu of cpus) {
    cpu.online = true;
    prepareVmx(cpu, allocator);
  }
  for (const cpu of cpus) cpu.lp.wbinvd();
  return { machine, allocator, cpus };
}

describe('undoing', () => {
  it('goes through the steps backwards, once', () => {
    const undo = new UndoStack();
    const order: number[] = [];
    for (const step of [1, 2, 3]) undo.push(() => order.push(step));
    undo.unwind();
    undo.unwind();
    expect(order).toEqual([3, 2, 1]);
  });

  it('calls the module on CPUs in VMX operation only', () => {
    const { machine, cpus } = kernelParts();
    const called: [lp: number, leaf: number][] = [];
    machine.seam.module = {
      version: 'test',
      seamcall(lp) {
        called.push([lp.index, lp.regs.d[2 * RAX]!]);
        lp.regs.q[RAX] = 0n;
      },
    };
    for (const i of [1, 2]) getVmx(cpus[i]!);
    cpus[2]!.online = false;
    shutDownModule(cpus);
    expect(called).toEqual([[1, TDH.sysLpShutdown]]);
    expect(cpus.map(({ cacheStateIncoherent }) => cacheStateIncoherent)).toEqual([false, true, false, false]);
  });

  it.each([true, false])('flushes every cache before PAMT memory is used again (erratum %s)', (erratum) => {
    const { machine, cpus } = kernelParts();
    const { memory, packages } = machine;
    const pamt = { base: 4 * GIB, bytes4k: 4 * MIB, bytes2m: 2 * PAGE_4K, bytes1g: PAGE_4K, node: 0 };
    const end = pamt.base + 4 * MIB + 3 * PAGE_4K;
    memory.claim(pamt.base, end, 9);
    for (const cpu of cpus) cpu.lp.store(GIB, Uint8Array.of(1));
    resetPamts(cpus, [pamt], erratum);
    expect(packages.map(({ cache }) => cache.dirtyPages)).toEqual([0, 0]);
    expect([pamt.base, end - 64].map((address) => memory.ownerAt(address))).toEqual(
      erratum ? [0, 0] : [9, 9],
    );
  });
});

describe('tables for the module', () => {
  it('are zeroed whatever was in their memory', () => {
    const { allocator, cpus } = kernelParts();
    const { lp } = cpus[0]!;
    const limits = {
      maxTdmrs: 64,
      maxReservedPerTdmr: 16,
      pamt4kEntrySize: 16,
      pamt2mEntrySize: 16,
      pamt1gEntrySize: 16,
    };
    const first = allocTdmrList(cpus[0]!, allocator, limits);
    const size = first.pages * PAGE_4K;
    expect([first.strideBytes, size]).toEqual([512, 64 * 512]);
    lp.store(first.base, new Uint8Array(size).fill(0xff));
    freeTable(allocator, first);
    const again = allocTdmrList(cpus[0]!, allocator, limits);
    expect(again.base).toBe(first.base);
    expect(lp.load(again.base, size).every((byte) => byte === 0)).toBe(true);
  });
});
