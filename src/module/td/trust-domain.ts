/** A TD as its control structures tell it, found from the address of its TDR. */
import { PAGE_4K, pfnOf, withKeyId } from '../../abi/address.ts';
import type { PhysicalMemory } from '../../machine/memory.ts';
import type { TdxModule } from '../tdx-module.ts';
import { ControlStructure } from './control-structure.ts';
import { privateGpaLimit } from './gpa.ts';
import {
  type CPUID_FLAG,
  TDCS,
  TDCS_PAGE,
  TDR,
  TDVPS,
  TDVPS_PAGES_MIN,
  TDVPS_PAGES_PER_L2_VM,
} from './layout.ts';
import type { TdMeasurement } from './measurement.ts';
import { SecureEpt } from './sept.ts';
import type { SeptEntry } from './sept-entry.ts';

/** EPTP bits 5:3: levels of the tree below the root. */
const EPTP_LEVELS_SHIFT = 3;
const EPTP_LEVELS_MASK = 0b111;
const PAGE_OFFSET = 0xfffn;

/** Fills of a page, as halves of a 64-bit value. @public */
export const ZEROES: SeptEntry = { low: 0, high: 0 };
export const ONES: SeptEntry = { low: 0xffff_ffff, high: 0xffff_ffff };

/**
 * The TD whose TDR is at `address`. It is kept between calls, because reading where its structures lie is most of a
 * short call's work; `forgetTrustDomain` when that changes.
 * @public
 */
export function trustDomainAt(module: TdxModule, address: number): TrustDomain {
  const pfn = pfnOf(address);
  const known = module.trustDomains.get(pfn);
  if (known !== undefined) return known;
  const td = new TrustDomain(module, address);
  module.trustDomains.set(pfn, td);
  return td;
}

/** Forgets where the TD's structures lie: a new TD is made, or it gets a page. @public */
export function forgetTrustDomain(module: TdxModule, address: number): void {
  module.trustDomains.delete(pfnOf(address));
}

/** @public */
export class TrustDomain {
  /** Physical address of the TDR, which is the TD's handle. */
  readonly address: number;
  readonly tdr: ControlStructure;
  /** The running measurement, as `runningMeasurement` found it. */
  measurement: TdMeasurement | undefined;
  readonly #memory: PhysicalMemory;
  readonly #keyIdStartBit: number;
  readonly #septs: (SecureEpt | undefined)[] = [];
  #tdcs: ControlStructure | undefined;

  constructor(module: TdxModule, address: number) {
    this.address = address;
    this.#memory = module.machine.memory;
    this.#keyIdStartBit = module.platform!.hkidStartBit;
    this.tdr = new ControlStructure(this.#memory, module.globalKeyId, [address]);
  }

  get keyId(): number {
    return this.tdr.u16(TDR.HKID);
  }

  /** The TDCS with the pages it has so far. */
  get tdcs(): ControlStructure {
    this.#tdcs ??= this.#structure(this.tdr, TDR.TDCX_PA, this.tdr.u32(TDR.NUM_TDCX));
    return this.#tdcs;
  }

  /** Address of the secure EPT's root page with its KeyID, as EPTP holds it. */
  septRoot(): bigint {
    return this.tdr.u64(TDR.TDCX_PA + 8 * TDCS_PAGE.SEPT_ROOT);
  }

  /** The EPTP of the TD (VM 0) or of an L2 VM as the CPU takes it: without KeyID. */
  eptpWithoutKeyId(vm: number): bigint {
    const controls = this.tdcs.u64(TDCS.EPTP) & PAGE_OFFSET;
    return controls | BigInt(this.#septRootAddress(vm));
  }

  /** The secure EPT of the TD (VM 0) or of an L2 VM, once the TD is initialised. */
  sept(vm = 0): SecureEpt {
    this.#septs[vm] ??= this.#findSept(vm);
    return this.#septs[vm]!;
  }

  /**
   * The TDVPS of the vCPU whose TDVPR is at `address`, or undefined while it has too few pages for the TD's VMs.
   */
  tdvps(address: number): ControlStructure | undefined {
    const tdvpr = new ControlStructure(this.#memory, this.keyId, [address]);
    const needed = TDVPS_PAGES_MIN + TDVPS_PAGES_PER_L2_VM * this.tdcs.u16(TDCS.NUM_L2_VMS);
    if (tdvpr.u8(TDVPS.NUM_TDVPS_PAGES) < needed) return undefined;
    return this.#structure(tdvpr, TDVPS.TDVPS_PAGE_PA, needed);
  }

  /** The first page of a vCPU's structure, which is all there is before VP.INIT. */
  tdvpr(address: number): ControlStructure {
    return new ControlStructure(this.#memory, this.keyId, [address]);
  }

  /** Makes the page at `address` one of the TD's own: `fill` over and over, under the TD's key. */
  claimPage(address: number, fill: SeptEntry = ZEROES): void {
    this.#memory.claim(address, address + PAGE_4K, this.keyId);
    if (fill === ZEROES) return;
    const start = this.#memory.frameOf(pfnOf(address), this.keyId) / 4;
    const words = this.#memory.frames.words32;
    for (let at = start; at < start + PAGE_4K / 4; at += 2) {
      words[at] = fill.low;
      words[at + 1] = fill.high;
    }
  }

  /** A physical address with the TD's KeyID, as control structures hold it. */
  withKeyId(address: number): number {
    return withKeyId(address, this.keyId, this.#keyIdStartBit);
  }

  addChildren(pages: number): void {
    this.tdr.setN64(TDR.CHLDCNT, this.tdr.n64(TDR.CHLDCNT) + pages);
  }

  /** What the TD's CPUID says about `flag`, one of CPUID_FLAG. */
  cpuidFlag(flag: (typeof CPUID_FLAG)[keyof typeof CPUID_FLAG]): boolean {
    return this.tdcs.flag(TDCS.CPUID_FLAGS + flag);
  }

  #findSept(vm: number): SecureEpt {
    const rootLevel = (this.tdcs.u8(TDCS.EPTP) >>> EPTP_LEVELS_SHIFT) & EPTP_LEVELS_MASK;
    const rootPfn = pfnOf(this.#septRootAddress(vm));
    const gpaLimit = privateGpaLimit(this.tdcs);
    return new SecureEpt(this.#memory, this.keyId, this.#keyIdStartBit, rootPfn, rootLevel, gpaLimit);
  }

  #septRootAddress(vm: number): number {
    const page = vm === 0 ? TDCS_PAGE.SEPT_ROOT : TDCS_PAGE.L2_SEPT_ROOT + vm - 1;
    return this.#withoutKeyId(this.tdr.n64(TDR.TDCX_PA + 8 * page));
  }

  #withoutKeyId(address: number): number {
    return address % 2 ** this.#keyIdStartBit;
  }

  #structure(holder: ControlStructure, addresses: number, pages: number): ControlStructure {
    const list = Array.from({ length: pages }, (_, i) => this.#withoutKeyId(holder.n64(addresses + 8 * i)));
    return new ControlStructure(this.#memory, this.keyId, list);
  }
}
