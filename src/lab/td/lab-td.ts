/**
 * A TD built and run with bare SEAMCALLs on a brought-up host: what tests, scenarios and examples need of a VMM. Every
 * page comes from the kernel's allocator and goes back to it; every step checks its status.
 */
import { alignDown, PAGE_4K, withKeyId } from '../../abi/address.ts';
import { hostLeafName, TDH } from '../../abi/leaves.ts';
import { RCX, setRegNumber } from '../../abi/registers.ts';
import { formatStatus } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { type Cpu, firstOnline, firstOnlinePerPackage, onlineCpus } from '../../kernel/cpu.ts';
import type { HostKernel } from '../../kernel/host-kernel.ts';
import { seamcall, setOperands } from '../../kernel/seamcall.ts';
import type { TdxSysinfo } from '../../kernel/sysinfo.ts';
import { PrivatePages } from './private-pages.ts';
import { tdParamsBytes } from './td-params-page.ts';

/** Page contents at a guest physical address, added before the TD is final. @public */
export interface InitialPage {
  readonly gpa: number;
  readonly contents: Uint8Array;
  /** Extend MRTD with the contents, not only with the address. Default true. */
  readonly measured?: boolean;
}

/** @public */
export interface LabTdOptions {
  readonly vcpus?: number;
  readonly attributes?: bigint;
  readonly pages?: readonly InitialPage[];
}

/** A TD as its host sees it. @public */
export interface LabVcpu {
  readonly index: number;
  readonly tdvpr: number;
  readonly pages: readonly number[];
}

const EXTEND_BYTES = 256;
/** Highest secure EPT level below the root of a 4-level tree. */
const TOP_TABLE_LEVEL = 3;
/** Bytes that a table of each level maps. */
const LEVEL_SIZES: readonly number[] = [0, 1, 2, 3].map((level) => PAGE_4K * 512 ** level);

/** @public */
export class LabTd {
  readonly kernel: HostKernel;
  readonly keyId: number;
  readonly tdr: number;
  readonly vcpus: LabVcpu[] = [];
  readonly mapped = new PrivatePages();
  readonly #tdcs: number[] = [];
  readonly #tables: number[] = [];
  /** Guest ranges that have a table: numbers of the ranges, by level. */
  readonly #present: readonly Set<number>[] = LEVEL_SIZES.map(() => new Set());

  private constructor(kernel: HostKernel) {
    this.kernel = kernel;
    this.keyId = kernel.keyIds.alloc();
    this.tdr = this.#page();
  }

  /** Creates, fills, measures and finalises a TD. Throws Error naming the leaf and status that failed. */
  static build(kernel: HostKernel, options: LabTdOptions = {}): LabTd {
    const sysinfo = kernel.sysinfo;
    if (sysinfo === null || kernel.state !== 'initialized')
      throw new Error('TDX is not initialised on this host');
    const td = new LabTd(kernel);
    td.#create(sysinfo, options);
    td.#addPages(options.pages ?? []);
    for (let i = 0; i < (options.vcpus ?? 1); i++) td.#addVcpu(sysinfo, i);
    td.#must(TDH.mrFinalize, td.tdr);
    return td;
  }

  /** Pages given to the module: private memory, tables, control structures. */
  get pageCount(): number {
    const control = this.vcpus.reduce((sum, { pages }) => sum + pages.length, 1 + this.#tdcs.length);
    return this.mapped.size + this.#tables.length + control;
  }

  /** The processor a vCPU belongs to: vCPUs are spread over those online. */
  cpuOf({ index }: Pick<LabVcpu, 'index'>): Cpu {
    const cpus = onlineCpus(this.kernel.cpus);
    return cpus[index % cpus.length]!;
  }

  /** VP.ENTER of a vCPU on `cpu` with the registers that are set; returns the status of the TD exit. */
  enter(vcpu: LabVcpu, cpu: Cpu): bigint {
    setRegNumber(cpu.lp.regs, RCX, vcpu.tdvpr);
    return seamcall(cpu, TDH.vpEnter);
  }

  /** Gives the TD a zeroed page at `gpa`, which the guest must accept. */
  augment(gpa: number): void {
    const page = alignDown(gpa, PAGE_4K);
    this.#makeTables(page);
    const memory = this.#page();
    this.#must(TDH.memPageAug, page, this.tdr, memory);
    this.mapped.add(page, memory);
  }

  /** Takes the page at `gpa` back: block, track, remove, write back. The TD's vCPUs must not be running. */
  remove(gpa: number): void {
    const memory = this.mapped.get(gpa);
    if (memory === undefined) throw new Error(`nothing is mapped at 0x${gpa.toString(16)}`);
    this.#must(TDH.memRangeBlock, gpa, this.tdr);
    this.#must(TDH.memTrack, this.tdr);
    this.#must(TDH.memPageRemove, gpa, this.tdr);
    this.#must(TDH.phymemPageWbinvd, this.#withKeyId(memory));
    this.#freePage(memory);
    this.mapped.delete(gpa);
  }

  /** Ends the TD in the order the module wants and gives everything back. */
  destroy(): void {
    for (const vcpu of this.vcpus) {
      const status = this.#call(this.cpuOf(vcpu), TDH.vpFlush, vcpu.tdvpr);
      if (status !== STATUS.TDX_VCPU_NOT_ASSOCIATED) expectSuccess(TDH.vpFlush, status);
    }
    this.#must(TDH.mngVpflushdone, this.tdr);
    for (const cpu of firstOnlinePerPackage(this.kernel.cpus)) this.#must(TDH.phymemCacheWb, 0, 0, 0, 0, cpu);
    this.#must(TDH.mngKeyFreeid, this.tdr);
    const owned = [
      ...this.mapped.values(),
      ...this.#tables,
      ...this.vcpus.flatMap(({ pages }) => pages),
      ...this.#tdcs,
    ];
    for (const page of [...owned, this.tdr]) {
      this.#must(TDH.phymemPageReclaim, page);
      this.#freePage(page);
    }
    this.kernel.keyIds.free(this.keyId);
  }

  #create(sysinfo: TdxSysinfo, options: LabTdOptions): void {
    const cpus = firstOnlinePerPackage(this.kernel.cpus);
    this.#must(TDH.mngCreate, this.tdr, this.keyId);
    for (const cpu of cpus) this.#must(TDH.mngKeyConfig, this.tdr, 0, 0, 0, cpu);
    for (let i = 0; i < sysinfo.tdCtrl.tdcsBaseSize / PAGE_4K; i++) {
      const page = this.#page();
      this.#must(TDH.mngAddcx, page, this.tdr);
      this.#tdcs.push(page);
    }
    const params = tdParamsBytes(this.#cpu, sysinfo, options);
    const buffer = this.#page();
    this.#storePage(buffer, params);
    this.#must(TDH.mngInit, this.tdr, buffer);
    this.#freePage(buffer);
  }

  #addPages(pages: readonly InitialPage[]): void {
    const source = this.#page();
    for (const page of pages) this.#addPage(page, source);
    this.#freePage(source);
  }

  /** Adds a page by way of `source`, a page of the host. */
  #addPage({ gpa, contents, measured = true }: InitialPage, source: number): void {
    this.#makeTables(gpa);
    this.#storePage(source, contents);
    const page = this.#page();
    this.#must(TDH.memPageAdd, gpa, this.tdr, page, source);
    this.mapped.add(gpa, page);
    if (!measured) return;
    for (let at = 0; at < PAGE_4K; at += EXTEND_BYTES) this.#must(TDH.mrExtend, gpa + at, this.tdr);
  }

  #addVcpu(sysinfo: TdxSysinfo, index: number): void {
    const tdvpr = this.#page();
    this.#must(TDH.vpCreate, tdvpr, this.tdr);
    const pages = [tdvpr];
    for (let i = 1; i < sysinfo.tdCtrl.tdvpsBaseSize / PAGE_4K; i++) {
      const page = this.#page();
      this.#must(TDH.vpAddcx, page, tdvpr);
      pages.push(page);
    }
    // Version 1: RDX is the guest's first RCX, R8 its x2APIC id.
    this.#must(TDH.vpInit | (1 << 16), tdvpr, 0, index, 0, this.cpuOf({ index }));
    this.vcpus.push({ index, tdvpr, pages });
  }

  #makeTables(gpa: number): void {
    if (this.#present[1]!.has(Math.floor(gpa / LEVEL_SIZES[1]!))) return;
    for (let level = TOP_TABLE_LEVEL; level >= 1; level--) {
      const index = Math.floor(gpa / LEVEL_SIZES[level]!);
      const present = this.#present[level]!;
      if (present.has(index)) continue;
      const page = this.#page();
      this.#must(TDH.memSeptAdd, index * LEVEL_SIZES[level]! + level, this.tdr, page);
      this.#tables.push(page);
      present.add(index);
    }
  }

  get #cpu(): Cpu {
    return firstOnline(this.kernel.cpus);
  }

  #page(): number {
    const pfn = this.kernel.allocator.allocPages(0, { purpose: 'td' });
    if (pfn === null) throw new Error('no page is free for the TD');
    this.#cpu.lp.clflushPage(pfn * PAGE_4K);
    return pfn * PAGE_4K;
  }

  /** Fills a page of the host, with zeroes behind `contents`, for the module to read. */
  #storePage(page: number, contents: Uint8Array): void {
    const { lp } = this.#cpu;
    lp.store(page, contents.length === PAGE_4K ? contents : padded(contents));
    lp.clflushPage(page);
  }

  /** A page that was private is written whole before the host uses it again. */
  #freePage(page: number): void {
    this.#cpu.lp.movdir64bZero(page, page + PAGE_4K);
    this.kernel.allocator.freePages(page / PAGE_4K, 1);
  }

  #withKeyId(page: number): number {
    return withKeyId(page, this.keyId, this.kernel.machine.keyIdStartBit);
  }

  #must(leaf: number, rcx: number, rdx = 0, r8 = 0, r9 = 0, cpu = this.#cpu): void {
    expectSuccess(leaf, this.#call(cpu, leaf, rcx, rdx, r8, r9));
  }

  #call(cpu: Cpu, leaf: number, rcx: number, rdx = 0, r8 = 0, r9 = 0): bigint {
    setOperands(cpu, rcx, rdx, r8, r9);
    return seamcall(cpu, leaf);
  }
}

/** A page that begins with `contents`. */
function padded(contents: Uint8Array): Uint8Array {
  const page = new Uint8Array(PAGE_4K);
  page.set(contents);
  return page;
}

function expectSuccess(leaf: number, status: bigint): void {
  if (status !== STATUS.TDX_SUCCESS)
    throw new Error(`${hostLeafName(leaf & 0xffff)}: ${formatStatus(status)}`);
}
