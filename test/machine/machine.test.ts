import { describe, expect, it } from 'vitest';
import { GIB, MIB } from '../../src/abi/address.ts';
import { RAX } from '../../src/abi/registers.ts';
import type { MachineDescription } from '../../src/machine/description.ts';
import { CpuException, MachineCheck, VECTOR_GP, VECTOR_UD } from '../../src/machine/exceptions.ts';
import { type AcpiEvent, Machine } from '../../src/machine/machine.ts';
import type { SeamImage } from '../../src/machine/seam.ts';

const DESCRIPTION: MachineDescription = {
  name: 'two sockets',
  cpuModel: 'sapphire-rapids',
  physicalAddressBits: 52,
  processors: [
    { apicId: 0, package: 0, node: 0, present: true },
    { apicId: 128, package: 1, node: 1, present: true },
    { apicId: 129, package: 1, node: 1, present: false },
  ],
  memory: [
    { start: 0, end: 2 * GIB, node: 0, kind: 'ram', state: 'present' },
    { start: 4 * GIB, end: 8 * GIB, node: 1, kind: 'ram', state: 'present' },
    { start: 8 * GIB, end: 12 * GIB, node: 1, kind: 'ram', state: 'hot-pluggable' },
  ],
  e820: [],
  srat: [],
  cmrs: [{ start: MIB, end: 2 * GIB }],
  keyIds: { mktme: 31, tdx: 32 },
  seamrr: { start: 0x3_c000_0000, end: 0x3_d000_0000 },
  module: null,
  seamLoader: null,
};

function vectorOf(action: () => unknown): number | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    if (!(error instanceof CpuException)) throw error;
    return error.vector;
  }
}

describe('machine', () => {
  it('puts the KeyID partitioning, width and SEAM range into CPUID and MSRs', () => {
    const machine = new Machine(DESCRIPTION);
    const lp = machine.lps[0]!;
    expect(lp.rdmsr(0x87)).toBe(0x20_0000_001fn);
    expect(lp.cpuid(0x8000_0008)[0] & 0xff).toBe(52);
    expect(lp.rdmsr(0x1400)).toBe(0x3_c000_0008n);
    expect(lp.rdmsr(0x1401)).toBe(0xf_ffff_f000_0c00n);
    expect(machine.keyIdStartBit).toBe(46);
    expect(machine.privateKeyIds).toEqual({ start: 32, count: 32 });
    expect(machine.lps[1]!.cpuid(0xb, 0)[3]).toBe(128);
  });

  it('faults on the KeyID partitioning where the BIOS left TDX off', () => {
    const lp = new Machine({ ...DESCRIPTION, keyIds: null }).lps[0]!;
    expect(vectorOf(() => lp.rdmsr(0x87))).toBe(VECTOR_GP);
  });

  it('wants CR4.VMXE before VMXON and VMX operation before SEAMCALL', () => {
    const lp = new Machine(DESCRIPTION).lps[0]!;
    expect(vectorOf(() => lp.vmxon())).toBe(VECTOR_UD);
    expect(vectorOf(() => lp.seamcall())).toBe(VECTOR_UD);
    lp.cr4Vmxe = true;
    lp.vmxon();
    expect(vectorOf(() => lp.vmxon())).toBe(VECTOR_GP);
    expect(lp.seamcall()).toBe(false);
    lp.vmxoff();
    expect(vectorOf(() => lp.vmxoff())).toBe(VECTOR_UD);
  });

  it('refuses SEAMCALL in the wrong mode and with the SEAM range disabled', () => {
    const lp = new Machine(DESCRIPTION).lps[0]!;
    lp.cr4Vmxe = true;
    lp.vmxon();
    lp.kernelMode = false;
    expect(vectorOf(() => lp.seamcall())).toBe(VECTOR_GP);
    const off = new Machine({ ...DESCRIPTION, seamrr: null }).lps[0]!;
    off.cr4Vmxe = true;
    off.vmxon();
    expect(vectorOf(() => off.seamcall())).toBe(VECTOR_GP);
  });

  it('sends RAX bit 63 to P-SEAMLDR and everything else to the module, and neither while P-SEAMLDR is busy', () => {
    const machine = new Machine(DESCRIPTION);
    const lp = machine.lps[0]!;
    lp.cr4Vmxe = true;
    lp.vmxon();
    const image = (answer: bigint): SeamImage => ({
      version: 'test',
      seamcall(on) {
        on.regs.q[RAX] = answer;
      },
    });
    machine.seam.module = image(1n);
    machine.seam.loader = image(2n);
    lp.regs.q[RAX] = 0n;
    expect(lp.seamcall()).toBe(true);
    expect(lp.regs.q[RAX]).toBe(1n);
    lp.regs.q[RAX] = 1n << 63n;
    expect(lp.seamcall()).toBe(true);
    expect(lp.regs.q[RAX]).toBe(2n);
    machine.seam.loaderBusy = true;
    lp.regs.q[RAX] = 1n << 63n;
    expect(lp.seamcall()).toBe(false);
    expect(lp.regs.q[RAX]).toBe(1n << 63n);
    expect(machine.seam.calls).toBe(2);
  });

  it('lets a dirty line that was not flushed destroy a page given to a key', () => {
    const machine = new Machine(DESCRIPTION);
    const lp = machine.lps[0]!;
    const give = (flush: boolean): void => {
      lp.store(0x5000, Uint8Array.of(1));
      if (flush) lp.clflushPage(0x5000);
      machine.memory.claim(0x5000, 0x6000, 40);
      lp.wbinvd();
    };
    give(true);
    expect(machine.memory.read(0x5000, 8, 40)).toEqual(new Uint8Array(8));
    give(false);
    expect(() => machine.memory.read(0x5000, 8, 40)).toThrow(MachineCheck);
  });

  it('writes dirty lines back from every package with CLFLUSH, from one with WBINVD', () => {
    const { lps, packages } = new Machine(DESCRIPTION);
    const dirty = (): number[] => packages.map(({ cache }) => cache.dirtyPages);
    for (const lp of lps) for (const at of [0x5000, 0x6000]) lp.store(at, Uint8Array.of(1));
    expect(dirty()).toEqual([2, 2]);
    lps[0]!.clflushPage(0x5000);
    expect(dirty()).toEqual([1, 1]);
    lps[1]!.wbinvd();
    expect(dirty()).toEqual([1, 0]);
  });

  it('forgets dirty lines of pages that MOVDIR64B overwrites', () => {
    const { lps, packages, memory } = new Machine(DESCRIPTION);
    for (const at of [0x5000, 0x6000, 0x7000]) lps[0]!.store(at, Uint8Array.of(1));
    lps[1]!.movdir64bZero(0x5000, 0x6000);
    expect(packages[0]!.cache.dirtyPages).toBe(2);
    lps[1]!.movdir64bZero(0x6000, 0x20000);
    expect(packages[0]!.cache.dirtyPages).toBe(0);
    memory.claim(0x5000, 0x6000, 40);
    lps[0]!.wbinvd();
    expect(memory.ownerAt(0x5000)).toBe(40);
  });

  it('keeps what was stored when it writes it back, every page of it', () => {
    const { lps, packages } = new Machine(DESCRIPTION);
    const bytes = new Uint8Array(0x2100).fill(3);
    lps[0]!.store(0x5f80, bytes);
    expect(packages[0]!.cache.dirtyPages).toBe(4);
    lps[0]!.wbinvd();
    expect(lps[0]!.load(0x5f80, bytes.length)).toEqual(bytes);
  });

  it('has no SMM range where memory is convertible', () => {
    const valid = (cmrs: MachineDescription['cmrs']): boolean =>
      ((new Machine({ ...DESCRIPTION, cmrs }).lps[0]!.rdmsr(0x1f3) >> 11n) & 1n) === 1n;
    expect(valid([{ start: MIB, end: 0xd000_0000 }])).toBe(true);
    expect(valid([{ start: MIB, end: 0xd000_1000 }])).toBe(false);
    expect(valid([{ start: 0xe000_0000, end: 4 * GIB }])).toBe(true);
  });

  it('wants whole lines of MOVDIR64B', () => {
    const lp = new Machine(DESCRIPTION).lps[0]!;
    expect(vectorOf(() => lp.movdir64b(0x5020, new Uint8Array(64)))).toBe(VECTOR_GP);
    expect(vectorOf(() => lp.movdir64b(0x5040, new Uint8Array(64)))).toBeUndefined();
  });

  it('forgets what was in memory that is taken away', () => {
    const machine = new Machine(DESCRIPTION);
    const dimm = DESCRIPTION.memory[2]!;
    machine.hotAddMemory(dimm);
    machine.memory.write(dimm.start, new Uint8Array(64).fill(7), 40);
    machine.hotRemoveMemory(dimm);
    expect(machine.memory.read(dimm.start, 1, 0)).toEqual(Uint8Array.of(0xff));
    machine.hotAddMemory(dimm);
    expect([machine.memory.ownerAt(dimm.start), machine.memory.read(dimm.start, 1, 0)[0]]).toEqual([0, 0]);
  });

  it('has every processor once, in a slot the firmware announced', () => {
    const machine = new Machine(DESCRIPTION);
    machine.hotAddProcessor(129);
    expect(() => machine.hotAddProcessor(129)).toThrow(/present already/);
    expect(() => machine.hotAddProcessor(0)).toThrow(/present already/);
    expect(() => machine.hotAddProcessor(130)).toThrow(/no processor slot/);
    expect(machine.lps.map(({ index, apicId }) => [index, apicId])).toEqual([
      [0, 0],
      [1, 128],
      [2, 129],
    ]);
  });

  it('tells the kernel about memory and processors that come and go', () => {
    const machine = new Machine(DESCRIPTION);
    const events: AcpiEvent['type'][] = [];
    machine.onAcpiEvent((event) => events.push(event.type));
    const dimm = DESCRIPTION.memory[2]!;
    expect(machine.isPresent(9 * GIB)).toBe(false);
    machine.hotAddMemory(dimm);
    expect(machine.isPresent(9 * GIB)).toBe(true);
    expect(() => machine.hotAddMemory(dimm)).toThrow();
    machine.hotRemoveMemory({ start: 9 * GIB, end: 10 * GIB });
    expect(machine.isPresent(9 * GIB)).toBe(false);
    expect(machine.isPresent(8 * GIB)).toBe(true);
    expect(machine.isPresent(11 * GIB)).toBe(true);
    expect(machine.hotAddProcessor(129).package.id).toBe(1);
    expect(events).toEqual(['memory-add', 'memory-remove', 'cpu-add']);
  });
});
