/** A TD of a scenario: built, grown and ended by SEAMCALLs, with every failure an errno and a reason. */
import { PAGE_4K } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { TDH } from '../../../abi/leaves.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { type Cpu, firstOnlinePerPackage } from '../../../kernel/cpu.ts';
import type { TdHost } from './td-host.ts';
import { TdMemory } from './td-memory.ts';

/** @internal */
export interface TdFigures {
  readonly name: string;
  /** Private memory in bytes. */
  readonly memory: number;
  readonly vcpus: number;
  /** Node to begin with; the kernel's choice where nothing is said. */
  readonly node?: number | undefined;
}

/** A vCPU with the processor that has its state, or null. */
interface ScenarioVcpu {
  readonly tdvpr: number;
  readonly pages: number[];
  cpu: Cpu | null;
}

/** Version 1 of VP.INIT: R8 is the vCPU's x2APIC id. */
const VP_INIT = TDH.vpInit | (1 << 16);
/** Calls of PHYMEM.CACHE.WB on one package before its KeyID is given up. */
const CACHE_WB_TRIES = 10_000;

/** @internal */
export class ScenarioTd {
  readonly figures: TdFigures;
  readonly host: TdHost;
  readonly keyId: number;
  readonly tdr: number;
  readonly memory: TdMemory;
  /** Why it answers nothing any more; null while it lives. */
  dead: string | null = null;
  readonly #tdcs: number[] = [];
  readonly #vcpus: ScenarioVcpu[] = [];
  #isCreated = false;

  private constructor(host: TdHost, figures: TdFigures) {
    checkPackages(host);
    this.host = host;
    this.figures = figures;
    this.keyId = host.kernel.keyIds.alloc();
    try {
      this.tdr = host.take(host.cpu, 0, 'td-control', figures.node);
    } catch (error) {
      host.kernel.keyIds.free(this.keyId);
      throw error;
    }
    this.memory = new TdMemory(host, this.tdr, this.keyId, figures.node);
  }

  /** A TD that is final and has its memory. Throws KernelError with nothing left of it but what is leaked. */
  static start(host: TdHost, figures: TdFigures): ScenarioTd {
    const td = new ScenarioTd(host, figures);
    try {
      td.#create();
      for (let i = 0; i < figures.vcpus; i++) td.#addVcpu(i);
      host.must(host.cpu, TDH.mrFinalize, td.tdr);
      td.memory.grow(figures.memory);
      return td;
    } catch (error) {
      td.stop();
      throw error;
    }
  }

  /** 4 KiB pages the module has of it. */
  get pageCount(): number {
    const control = this.#vcpus.reduce((sum, { pages }) => sum + pages.length, 1 + this.#tdcs.length);
    return this.memory.pages + this.memory.tables.length + control;
  }

  /** Every page the module has of it, with its order. */
  *modulePages(): Generator<readonly [address: number, order: number]> {
    for (const { address, order } of this.memory.chunks) yield [address, order];
    for (const page of [
      ...this.memory.tables,
      ...this.#vcpus.flatMap(({ pages }) => pages),
      ...this.#tdcs,
      this.tdr,
    ])
      yield [page, 0];
  }

  /** What of it lies in `[start, end)`: its memory, what controls it, or nothing. */
  lostWith(start: number, end: number): 'memory' | 'control' | null {
    if (this.memory.chunkIn(start, end) !== undefined) return 'memory';
    const controls = [
      ...this.memory.tables,
      ...this.#vcpus.flatMap(({ pages }) => pages),
      ...this.#tdcs,
      this.tdr,
    ];
    return controls.some((page) => page >= start && page < end) ? 'control' : null;
  }

  /** `cpu` is going offline: it gives up the vCPUs whose state it has. */
  leaveCpu(cpu: Cpu): void {
    for (const vcpu of this.#vcpus) if (vcpu.cpu === cpu) this.#flush(vcpu);
  }

  /** Ends it in the order the module wants; what the module keeps is leaked. */
  stop(): void {
    const { host } = this;
    const { cpu, kernel } = host;
    if (!this.#isCreated) {
      host.give(cpu, this.tdr, 0);
      kernel.keyIds.free(this.keyId);
      return;
    }
    const pages = [...this.modulePages()];
    if (!this.#freeKeyId()) {
      host.leakedKeyIds++;
      for (const [, order] of pages) host.leakedPages += 2 ** order;
      return;
    }
    kernel.keyIds.free(this.keyId);
    for (const [page, order] of pages) host.reclaim(cpu, page, order);
  }

  #freeKeyId(): boolean {
    const { host } = this;
    const { cpu } = host;
    for (const vcpu of this.#vcpus) this.#flush(vcpu);
    if (host.call(cpu, TDH.mngVpflushdone, this.tdr) !== STATUS.TDX_SUCCESS) return false;
    for (const one of firstOnlinePerPackage(host.kernel.cpus)) {
      for (let tries = 0; tries < CACHE_WB_TRIES; tries++) {
        if (host.call(one, TDH.phymemCacheWb, tries === 0 ? 0 : 1) !== STATUS.TDX_INTERRUPTED_RESUMABLE)
          break;
      }
    }
    return host.call(cpu, TDH.mngKeyFreeid, this.tdr) === STATUS.TDX_SUCCESS;
  }

  /** A flush that fails shows in VPFLUSHDONE. */
  #flush(vcpu: ScenarioVcpu): void {
    if (vcpu.cpu !== null) this.host.call(vcpu.cpu, TDH.vpFlush, vcpu.tdvpr);
    vcpu.cpu = null;
  }

  #create(): void {
    const { host, tdr, figures } = this;
    const { cpu, kernel } = host;
    const status = host.call(cpu, TDH.mngCreate, tdr, this.keyId);
    if (status !== STATUS.TDX_SUCCESS) throw host.refusal(TDH.mngCreate, status, tdr);
    this.#isCreated = true;
    for (const one of firstOnlinePerPackage(kernel.cpus)) host.must(one, TDH.mngKeyConfig, tdr);
    const count = host.sysinfo.tdCtrl.tdcsBaseSize / PAGE_4K;
    for (let i = 0; i < count; i++) this.#tdcs.push(this.#control(TDH.mngAddcx, tdr));
    const pfn = kernel.allocator.allocPages(0, { purpose: 'td-params' });
    if (pfn === null) throw new KernelError('ENOMEM', 'no-page', 'no page is free for TD_PARAMS');
    try {
      cpu.lp.store(pfn * PAGE_4K, host.params(figures.vcpus));
      host.must(cpu, TDH.mngInit, tdr, pfn * PAGE_4K);
    } finally {
      kernel.allocator.freePages(pfn, 1);
    }
  }

  #addVcpu(index: number): void {
    const { host, tdr } = this;
    const cpu = host.nextCpu();
    const tdvpr = this.#control(TDH.vpCreate, tdr);
    const vcpu: ScenarioVcpu = { tdvpr, pages: [tdvpr], cpu: null };
    this.#vcpus.push(vcpu);
    const count = host.sysinfo.tdCtrl.tdvpsBaseSize / PAGE_4K;
    for (let i = 1; i < count; i++) vcpu.pages.push(this.#control(TDH.vpAddcx, tdvpr));
    host.must(cpu, VP_INIT, tdvpr, 0, index);
    vcpu.cpu = cpu;
  }

  /** A page that the module takes for the structure at `parent`. */
  #control(leaf: number, parent: number): number {
    const { host, figures } = this;
    const { cpu } = host;
    const page = host.take(cpu, 0, 'td-control', figures.node);
    const status = host.call(cpu, leaf, page, parent);
    if (status === STATUS.TDX_SUCCESS) return page;
    const refusal = host.refusal(leaf, status, page);
    host.give(cpu, page, 0);
    throw refusal;
  }
}

/** Keys are programmed by a processor of each package, so each must have one online. */
function checkPackages({ kernel }: TdHost): void {
  const online = new Set<number>();
  for (const cpu of kernel.cpus) if (cpu.online) online.add(cpu.packageId);
  const missing = kernel.cpus.find((cpu) => !online.has(cpu.packageId));
  if (missing === undefined) return;
  throw new KernelError(
    'EIO',
    'package-offline',
    `package ${missing.packageId} has no online CPU: the key of a TD cannot be programmed there`,
    { package: missing.packageId },
  );
}
