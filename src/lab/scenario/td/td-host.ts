/** What the TDs of a scenario share: the kernel they are of, pages for the module, and what is leaked for good. */
import { contains, hex, PAGE_4K, withKeyId } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { hostLeafName, TDH } from '../../../abi/leaves.ts';
import { RCX, setRegNumber } from '../../../abi/registers.ts';
import { formatStatus } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { type Cpu, firstOnline } from '../../../kernel/cpu.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import { PamtPages } from '../../../kernel/pamt-pages.ts';
import { seamcall, setOperands } from '../../../kernel/seamcall.ts';
import type { TdxSysinfo } from '../../../kernel/sysinfo.ts';
import { tdParamsBytes } from '../../td/td-params-page.ts';

/** The module refused a page because it is no TDX memory: what policies of allocation are about. @public */
export const NOT_TDX_PAGE = 'module-refused-page';

/** @internal */
export class TdHost {
  readonly kernel: HostKernel;
  /** Pairs of Dynamic PAMT; null where PAMT is static. */
  readonly pamt: PamtPages | null;
  readonly sysinfo: TdxSysinfo;
  /** 4 KiB pages and KeyIDs that the module kept. */
  leakedPages = 0;
  leakedKeyIds = 0;
  readonly #resets: boolean;
  readonly #params = new Map<number, Uint8Array>();
  #turn = 0;

  /** The module of `kernel` is initialised. */
  constructor(kernel: HostKernel, sysinfo: TdxSysinfo) {
    this.kernel = kernel;
    this.sysinfo = sysinfo;
    this.pamt = kernel.enabled?.dynamicPamt === true ? new PamtPages(kernel.tdMemory) : null;
    this.#resets = kernel.detection?.errata.partialWriteMce ?? false;
  }

  /** The CPU that host threads run on. */
  get cpu(): Cpu {
    return firstOnline(this.kernel.cpus);
  }

  /** An online CPU for a vCPU, each in its turn. */
  nextCpu(): Cpu {
    const { cpus } = this.kernel;
    for (let tries = 0; tries < cpus.length; tries++) {
      const cpu = cpus[this.#turn++ % cpus.length]!;
      if (cpu.online) return cpu;
    }
    return this.cpu;
  }

  /** TD_PARAMS of a TD with so many vCPUs. */
  params(vcpus: number): Uint8Array {
    const known = this.#params.get(vcpus);
    if (known !== undefined) return known;
    const params = tdParamsBytes(this.cpu, this.sysinfo, { vcpus });
    this.#params.set(vcpus, params);
    return params;
  }

  /** SEAMCALL; returns its status. */
  call(cpu: Cpu, leaf: number, rcx = 0, rdx = 0, r8 = 0, r9 = 0): bigint {
    setOperands(cpu, rcx, rdx, r8, r9);
    return seamcall(cpu, leaf);
  }

  /** SEAMCALL that must not fail. Throws EIO naming leaf and status. */
  must(cpu: Cpu, leaf: number, rcx = 0, rdx = 0, r8 = 0, r9 = 0): void {
    const status = this.call(cpu, leaf, rcx, rdx, r8, r9);
    if (status !== STATUS.TDX_SUCCESS) throw callFailed(leaf, status);
  }

  /** Address of 2^order pages that the policy gives a TD, ready for the module. Throws ENOMEM or what the policy says. */
  take(cpu: Cpu, order: number, purpose: string, node: number | undefined): number {
    const pfn = this.kernel.tdMemory.alloc(order, node === undefined ? { purpose } : { purpose, node });
    const address = pfn * PAGE_4K;
    try {
      if (order === 0) this.pamt?.get(cpu, address);
    } catch (error) {
      this.kernel.allocator.freePages(pfn, 1);
      throw error;
    }
    for (let at = address; at < address + PAGE_4K * 2 ** order; at += PAGE_4K) cpu.lp.clflushPage(at);
    return address;
  }

  /** Gives back what the module did not take, or has returned. */
  give(cpu: Cpu, address: number, order: number): void {
    if (order === 0) this.pamt?.put(cpu, address);
    this.kernel.allocator.freePages(address / PAGE_4K, 2 ** order);
  }

  /** Memory that was private is written whole where a partial write would be a machine check, and given back. */
  reset(cpu: Cpu, address: number, order: number): void {
    if (this.#resets) cpu.lp.movdir64bZero(address, address + PAGE_4K * 2 ** order);
    this.give(cpu, address, order);
  }

  /** PHYMEM.PAGE.RECLAIM, once the KeyID is free; a page that the module keeps is leaked. */
  reclaim(cpu: Cpu, address: number, order: number): void {
    if (this.call(cpu, TDH.phymemPageReclaim, address) === STATUS.TDX_SUCCESS)
      this.reset(cpu, address, order);
    else this.leakedPages += 2 ** order;
  }

  /** PHYMEM.PAGE.WBINVD of pages under a KeyID. Throws EIO. */
  writeBack(cpu: Cpu, address: number, keyId: number, order: number): void {
    const start = withKeyId(address, keyId, this.kernel.machine.keyIdStartBit);
    setOperands(cpu);
    for (let at = start; at < start + PAGE_4K * 2 ** order; at += PAGE_4K) {
      setRegNumber(cpu.lp.regs, RCX, at);
      const status = seamcall(cpu, TDH.phymemPageWbinvd);
      if (status !== STATUS.TDX_SUCCESS) throw callFailed(TDH.phymemPageWbinvd, status);
    }
  }

  /** Why the module did not take the page at `address`: it is no TDX memory, or something else. */
  refusal(leaf: number, status: bigint, address: number): KernelError {
    const page = { start: address, end: address + PAGE_4K };
    if (this.kernel.tdxMemory.some((range) => contains(range, page))) return callFailed(leaf, status);
    const leafName = hostLeafName(leaf & 0xffff);
    return new KernelError(
      'EIO',
      NOT_TDX_PAGE,
      `${leafName} refused page ${hex(address)}, which is no TDX memory, with ${formatStatus(status)}`,
      {
        leaf: leafName,
        status: formatStatus(status),
        page: hex(address),
        node: this.kernel.allocator.nodeOf(address / PAGE_4K),
      },
    );
  }
}

/** @internal */
export function callFailed(leaf: number, status: bigint): KernelError {
  const leafName = hostLeafName(leaf & 0xffff);
  const statusName = formatStatus(status);
  return new KernelError('EIO', 'seamcall-failed', `${leafName} failed with ${statusName}`, {
    leaf: leafName,
    status: statusName,
  });
}
