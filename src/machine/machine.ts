/** A powered-on machine: the description made live. It knows nothing of TDX policy. */
import { type AddressRange, contains, overlaps } from '../abi/address.ts';
import { VirtualClock } from './clock.ts';
import {
  keyIdBits,
  type MachineDescription,
  type MemoryRange,
  PARTIAL_WRITE_ERRATUM,
} from './description.ts';
import type { GuestCode } from './guest-code.ts';
import type { HypervisorImage } from './hypervisor-image.ts';
import { LogicalProcessor } from './lp.ts';
import { PhysicalMemory } from './memory.ts';
import { Package } from './package.ts';
import { type CpuidTable, cpuidTable, MSR, mcheckInfo, msrTable } from './platform.ts';
import { EntropySource } from './random.ts';
import { Seam } from './seam.ts';
import { SeamReports } from './seam-reports.ts';
import { Snp } from './snp/snp.ts';

/** An event the firmware tells the kernel about through ACPI. @public */
export type AcpiEvent =
  | { readonly type: 'memory-add'; readonly range: MemoryRange }
  | { readonly type: 'memory-remove'; readonly range: MemoryRange }
  | { readonly type: 'cpu-add'; readonly lp: LogicalProcessor };

/**
 * Checks an access of host software before it reaches memory: RMP, stage 2 of a hypervisor below the host. Throws
 * CpuException.
 * @public
 */
export type HostAccessCheck = (address: number, lengthBytes: number, kind: 'load' | 'store') => void;

/** @public */
export interface MachineOptions {
  /** Seed of the machine's entropy. */
  readonly seed?: bigint;
}

/** @public */
export class Machine {
  readonly description: MachineDescription;
  readonly clock = new VirtualClock();
  readonly entropy: EntropySource;
  readonly memory: PhysicalMemory;
  readonly packages: readonly Package[];
  readonly lps: LogicalProcessor[] = [];
  readonly seam: Seam;
  /** What executes guests that no TDX module runs; filled by whoever puts the host together. */
  guestCode: GuestCode | null = null;
  /** What runs below the host's kernel and answers its HVC; filled by whoever puts the host together. */
  hypervisor: HypervisorImage | null = null;
  /** Set by hardware that restricts what host software may touch. */
  hostAccess: HostAccessCheck | null = null;
  /** SEV-SNP; null on machines without it. */
  readonly snp: Snp | null;
  readonly cpuid: CpuidTable;
  readonly msrs: Map<number, bigint>;
  readonly absentMsrs = new Set<number>();
  readonly partialWriteErratum: boolean;
  /** Lowest physical address bit that carries a KeyID. */
  readonly keyIdStartBit: number;
  /** CMRs as MCHECK hands them to the module; fixed at boot whatever is plugged later. */
  cmrs: readonly AddressRange[];
  #memoryRanges: MemoryRange[];
  readonly #acpiListeners: ((event: AcpiEvent) => void)[] = [];

  constructor(description: MachineDescription, options: MachineOptions = {}) {
    this.description = description;
    const { seed = 1n } = options;
    this.entropy = new EntropySource(seed);
    this.cpuid = cpuidTable(description);
    this.msrs = msrTable(description);
    if (description.keyIds === null) this.absentMsrs.add(MSR.MKTME_KEYID_PARTITIONING);
    const reports = new SeamReports(seed);
    this.seam = new Seam(description.seamrr !== null, mcheckInfo(description, this.cpuid), reports);
    this.partialWriteErratum = PARTIAL_WRITE_ERRATUM.has(description.cpuModel);
    this.keyIdStartBit = description.physicalAddressBits - keyIdBits(description.keyIds);
    this.cmrs = description.cmrs;
    this.#memoryRanges = description.memory.filter((range) => range.state === 'present');
    this.memory = new PhysicalMemory({
      present: (address) => this.isPresent(address),
      isPrivateKeyId: (keyId) => this.isPrivateKeyId(keyId),
      partialWriteErratum: this.partialWriteErratum,
    });
    const packageCount = Math.max(0, ...description.processors.map((cpu) => cpu.package + 1));
    this.packages = Array.from({ length: packageCount }, (_, id) => new Package(id, this.memory));
    for (const cpu of description.processors) if (cpu.present) this.#addLp(cpu.apicId, cpu.package, cpu.node);
    this.snp = description.sev === undefined ? null : new Snp(this, description.sev);
  }

  /** First private KeyID and the number of them; zero of them where TDX is off in the BIOS. */
  get privateKeyIds(): { readonly start: number; readonly count: number } {
    const keys = this.description.keyIds;
    return keys === null ? { start: 0, count: 0 } : { start: keys.mktme + 1, count: keys.tdx };
  }

  isPrivateKeyId(keyId: number): boolean {
    const { start, count } = this.privateKeyIds;
    return keyId >= start && keyId < start + count;
  }

  /** True when memory answers at `address`. */
  isPresent(address: number): boolean {
    return this.#memoryRanges.some((range) => range.start <= address && address < range.end);
  }

  /** Memory that is plugged in now. */
  get presentMemory(): readonly MemoryRange[] {
    return this.#memoryRanges;
  }

  /** Registers the kernel's ACPI handler. */
  onAcpiEvent(listener: (event: AcpiEvent) => void): void {
    this.#acpiListeners.push(listener);
  }

  /** Plugs memory in and tells the kernel. Throws when it overlaps memory that is there. */
  hotAddMemory(range: MemoryRange): void {
    if (this.#memoryRanges.some((present) => overlaps(present, range))) {
      throw new Error('hot-added memory overlaps present memory');
    }
    const plugged: MemoryRange = { ...range, state: 'present' };
    this.#memoryRanges = [...this.#memoryRanges, plugged].sort((a, b) => a.start - b.start);
    this.#notify({ type: 'memory-add', range: plugged });
  }

  /** Tells the kernel that memory goes, then takes it away. Throws when no present range holds it. */
  hotRemoveMemory(range: AddressRange): void {
    const holder = this.#memoryRanges.find((present) => contains(present, range));
    if (holder === undefined) throw new Error('hot-removed memory is not present');
    this.#notify({ type: 'memory-remove', range: { ...holder, start: range.start, end: range.end } });
    this.memory.claim(range.start, range.end, 0);
    const rest = [
      { ...holder, end: range.start },
      { ...holder, start: range.end },
    ].filter((piece) => piece.start < piece.end);
    this.#memoryRanges = [...this.#memoryRanges.filter((present) => present !== holder), ...rest].sort(
      (a, b) => a.start - b.start,
    );
  }

  /** Plugs a processor in that the description announces as absent, and tells the kernel. */
  hotAddProcessor(apicId: number): LogicalProcessor {
    const cpu = this.description.processors.find((candidate) => candidate.apicId === apicId);
    if (cpu === undefined) throw new Error(`no processor slot has APIC id ${apicId}`);
    if (this.lps.some((lp) => lp.apicId === apicId)) throw new Error(`APIC id ${apicId} is present already`);
    const lp = this.#addLp(cpu.apicId, cpu.package, cpu.node);
    this.#notify({ type: 'cpu-add', lp });
    return lp;
  }

  /** State of the hardware for a saved machine; `description` makes the machine that `restore` is called on. */
  save() {
    return {
      description: this.description,
      clock: this.clock.save(),
      entropy: this.entropy.save(),
      memory: this.memory.save(),
      packages: this.packages.map((pkg) => pkg.save()),
      lps: this.lps.map((lp) => lp.save()),
      seam: this.seam.save(),
      cpuid: this.cpuid,
      msrs: this.msrs,
      absentMsrs: this.absentMsrs,
      cmrs: this.cmrs,
      memoryRanges: this.#memoryRanges,
      snp: this.snp?.save() ?? null,
    };
  }

  /** Goes on from what `save` gave. The machine is fresh, made of the saved description. */
  restore(saved: ReturnType<Machine['save']>): void {
    this.clock.restore(saved.clock);
    this.entropy.restore(saved.entropy);
    this.cmrs = saved.cmrs;
    this.#memoryRanges = saved.memoryRanges;
    this.memory.restore(saved.memory);
    saved.packages.forEach((pkg, id) => {
      this.packages[id]!.restore(pkg);
    });
    // Processors beyond the description's were plugged in later.
    for (const [index, lp] of saved.lps.entries()) {
      const { apicId, package: packageId, node } = lp;
      (this.lps[index] ?? this.#addLp(apicId, packageId, node)).restore(lp);
    }
    this.seam.restore(saved.seam);
    if (saved.snp !== null) this.snp!.restore(saved.snp);
    this.cpuid.clear();
    for (const [key, result] of saved.cpuid) this.cpuid.set(key, result);
    this.msrs.clear();
    for (const [address, value] of saved.msrs) this.msrs.set(address, value);
    this.absentMsrs.clear();
    for (const address of saved.absentMsrs) this.absentMsrs.add(address);
  }

  #addLp(apicId: number, packageId: number, node: number): LogicalProcessor {
    const lp = new LogicalProcessor(this, this.lps.length, apicId, this.packages[packageId]!, node);
    this.lps.push(lp);
    return lp;
  }

  #notify(event: AcpiEvent): void {
    for (const listener of this.#acpiListeners) listener(event);
  }
}
