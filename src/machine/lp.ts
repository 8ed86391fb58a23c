/** One logical processor: registers, VMX operation, CPUID, MSRs, cache instructions, SEAMCALL. */
import { CACHE_LINE, PAGE_4K } from '../abi/address.ts';
import { createRegisters, type Registers } from '../abi/registers.ts';
import { CpuException, VECTOR_GP, VECTOR_UD } from './exceptions.ts';
import type { GuestContext, GuestExit } from './guest-code.ts';
import type { Machine } from './machine.ts';
import type { CpuidResult } from './native-platform.ts';
import type { Package } from './package.ts';
import { type CpuidTable, cpuidKeys } from './platform.ts';

const NO_CPUID: CpuidResult = [0, 0, 0, 0];
/** Topology leaves: they echo the subleaf in ECX and give the LP's own x2APIC id in EDX. */
const TOPOLOGY_LEAVES: ReadonlySet<number> = new Set([0xb, 0x1f]);
/** CPUID 0x15, the time-stamp counter: ratio to the crystal clock and its frequency. */
const TSC_KEYS = cpuidKeys(0x15, 0);
const NS_PER_SECOND = 1_000_000_000n;

/** @public */
export class LogicalProcessor {
  readonly machine: Machine;
  readonly index: number;
  readonly package: Package;
  readonly node: number;
  apicId: number;
  readonly regs: Registers = createRegisters();
  /** 64-bit mode at CPL 0; SEAMCALL faults elsewhere. */
  kernelMode = true;
  /** In VMX root operation, between VMXON and VMXOFF. */
  vmxOperation = false;
  /** CR4.VMXE. */
  cr4Vmxe = false;
  /** MSRs that differ on this LP from the machine's. */
  readonly msrs = new Map<number, bigint>();
  /** CPUID that differs on this LP from the machine's. */
  readonly cpuidOverrides: CpuidTable = new Map();
  /** What RDTSC returns; null for a counter that follows the virtual clock. */
  fixedTsc: bigint | null = null;

  constructor(machine: Machine, index: number, apicId: number, pkg: Package, node: number) {
    this.machine = machine;
    this.index = index;
    this.apicId = apicId;
    this.package = pkg;
    this.node = node;
  }

  /** VMXON. Throws #UD without CR4.VMXE, #GP when already in VMX operation. */
  vmxon(): void {
    if (!this.cr4Vmxe) throw new CpuException(VECTOR_UD, 'VMXON without CR4.VMXE');
    if (this.vmxOperation) throw new CpuException(VECTOR_GP, 'VMXON in VMX operation');
    this.vmxOperation = true;
  }

  /** VMXOFF. Throws #UD outside VMX operation. */
  vmxoff(): void {
    if (!this.vmxOperation) throw new CpuException(VECTOR_UD, 'VMXOFF outside VMX operation');
    this.vmxOperation = false;
  }

  cpuid(leaf: number, subleaf = 0): CpuidResult {
    const found = this.#cpuidEntry(cpuidKeys(leaf, subleaf));
    if (TOPOLOGY_LEAVES.has(leaf)) {
      const [eax, ebx, ecx] = found ?? [0, 0, subleaf];
      return [eax, ebx, ecx, this.apicId];
    }
    if (leaf === 1 && found !== undefined) {
      const [eax, ebx, ecx, edx] = found;
      return [eax, ((ebx & 0x00ff_ffff) | ((this.apicId & 0xff) << 24)) >>> 0, ecx, edx];
    }
    return found ?? NO_CPUID;
  }

  /** RDMSR. Throws #GP for a register the machine does not have; one it has but never set reads 0. */
  rdmsr(address: number): bigint {
    if (this.machine.absentMsrs.has(address)) {
      throw new CpuException(VECTOR_GP, `RDMSR of absent MSR 0x${address.toString(16)}`);
    }
    return this.msrs.get(address) ?? this.machine.msrs.get(address) ?? 0n;
  }

  /** WRMSR on this LP only. Throws #GP for a register the machine does not have. */
  wrmsr(address: number, value: bigint): void {
    if (this.machine.absentMsrs.has(address)) {
      throw new CpuException(VECTOR_GP, `WRMSR of absent MSR 0x${address.toString(16)}`);
    }
    this.msrs.set(address, value);
  }

  /** RDTSC. */
  rdtsc(): bigint {
    if (this.fixedTsc !== null) return this.fixedTsc;
    const [denominator, numerator, crystalHz] = this.#cpuidEntry(TSC_KEYS) ?? NO_CPUID;
    const ticksPerSecond = (BigInt(crystalHz) * BigInt(numerator)) / BigInt(denominator || 1);
    return (BigInt(Math.floor(this.machine.clock.nowNs)) * ticksPerSecond) / NS_PER_SECOND;
  }

  #cpuidEntry([exact, any]: ReturnType<typeof cpuidKeys>): CpuidResult | undefined {
    const table = this.machine.cpuid;
    const own = this.cpuidOverrides;
    return own.get(exact) ?? own.get(any) ?? table.get(exact) ?? table.get(any);
  }

  /** A load by host software. Throws MachineCheck, or the CpuException of an access check. */
  load(address: number, length: number, keyId = 0): Uint8Array {
    this.machine.hostAccess?.(address, length, 'load');
    return this.machine.memory.read(address, length, keyId);
  }

  /** A store by host software: reaches memory now, and leaves dirty lines in the package's cache. */
  store(address: number, bytes: Uint8Array, keyId = 0): void {
    this.machine.hostAccess?.(address, bytes.length, 'store');
    this.machine.memory.write(address, bytes, keyId);
    this.package.cache.markDirty(address, bytes.length, keyId);
  }

  /** MOVDIR64B: writes one whole line past the caches. `address` is a multiple of 64, `line` 64 bytes. */
  movdir64b(address: number, line: Uint8Array, keyId = 0): void {
    if (address % CACHE_LINE !== 0) throw new CpuException(VECTOR_GP, 'MOVDIR64B to an unaligned address');
    this.machine.hostAccess?.(address, line.length, 'store');
    this.machine.memory.write(address, line, keyId, 'direct');
  }

  /** MOVDIR64B of zeroes over whole pages, as a loop over their lines would do it. */
  movdir64bZero(start: number, end: number, keyId = 0): void {
    this.machine.hostAccess?.(start, end - start, 'store');
    for (const { cache } of this.machine.packages) cache.discard(start, end);
    this.machine.memory.claim(start, end, keyId);
  }

  /** CLFLUSH of every line of the page at `address`, in the caches of every package. */
  clflushPage(address: number): void {
    for (const { cache } of this.machine.packages) cache.writeBackPage(Math.floor(address / PAGE_4K));
  }

  /** WBINVD: writes back and empties the caches of this LP's package, and only those. */
  wbinvd(): void {
    this.package.cache.writeBackAll();
    this.machine.snp?.firmware.wbinvd(this.index);
  }

  /**
   * SEAMCALL with the operands in `regs`. Returns false for VMFailInvalid (CF = 1, registers unchanged): no
   * module behind RAX bit 63, or P-SEAMLDR busy. Throws #UD outside VMX operation, #GP in the wrong mode or
   * when the SEAM range is not enabled.
   */
  seamcall(): boolean {
    if (!this.vmxOperation) throw new CpuException(VECTOR_UD, 'SEAMCALL outside VMX operation');
    const { seam } = this.machine;
    if (!this.kernelMode) throw new CpuException(VECTOR_GP, 'SEAMCALL outside 64-bit mode at CPL 0');
    if (!seam.enabled) throw new CpuException(VECTOR_GP, 'SEAMCALL with the SEAM range disabled');
    return seam.enter(this);
  }

  /**
   * HVC with the operands in `regs`, x0 being register 0: the call to the hypervisor below the host. Throws #UD where
   * there is none.
   */
  hvc(): void {
    const { hypervisor } = this.machine;
    if (hypervisor === null) throw new CpuException(VECTOR_UD, 'HVC without a hypervisor');
    hypervisor.hvc(this);
  }

  /** Runs the guest of `context` until it exits to the host. Throws Error where nothing executes guests. */
  runGuest(context: GuestContext): GuestExit {
    const { guestCode } = this.machine;
    if (guestCode === null) throw new Error('the machine has nothing that executes guests');
    return guestCode.run(context);
  }

  /** State for a saved machine, with what the constructor needs to make the processor. */
  save() {
    return {
      apicId: this.apicId,
      package: this.package.id,
      node: this.node,
      registers: this.regs.q,
      kernelMode: this.kernelMode,
      vmxOperation: this.vmxOperation,
      cr4Vmxe: this.cr4Vmxe,
      msrs: this.msrs,
      cpuidOverrides: this.cpuidOverrides,
      fixedTsc: this.fixedTsc,
    };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<LogicalProcessor['save']>): void {
    this.apicId = saved.apicId;
    this.regs.q.set(saved.registers);
    this.kernelMode = saved.kernelMode;
    this.vmxOperation = saved.vmxOperation;
    this.cr4Vmxe = saved.cr4Vmxe;
    for (const [address, value] of saved.msrs) this.msrs.set(address, value);
    for (const [key, result] of saved.cpuidOverrides) this.cpuidOverrides.set(key, result);
    this.fixedTsc = saved.fixedTsc;
  }
}
