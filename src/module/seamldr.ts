/**
 * P-SEAMLDR: tells of itself, and installs a module image once every LP has asked for it (published loader interface,
 * Linux host rules 1.5, 1.6, 1.12).
 */
import { PAGE_4K } from '../abi/address.ts';
import { RAX, RCX, RDX } from '../abi/registers.ts';
import { decodeSeamSigstruct, SEAM_SIGSTRUCT_SIZE } from '../abi/seam-sigstruct.ts';
import { encodeSeamldrInfo, SEAMLDR_INFO_SIZE } from '../abi/seamldr-info.ts';
import {
  decodeSeamldrParams,
  SEAMLDR_PARAMS_SIZE,
  SEAMLDR_SCENARIO,
  type SeamldrParams,
} from '../abi/seamldr-params.ts';
import { SEAMLDR_STATUS } from '../abi/seamldr-status.ts';
import { STATUS } from '../abi/status-codes.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import type { Machine } from '../machine/machine.ts';
import type { SeamImage } from '../machine/seam.ts';
import { readHandoffHeader } from './handoff.ts';
import { loadModule } from './load-module.ts';
import { releaseOfImage, sha384 } from './module-image.ts';
import type { SharedHpaRules } from './platform.ts';
import type { ModuleRelease } from './releases.ts';
import { readShared, type SharedBuffer, sharedBuffer, writeShared } from './shared-buffer.ts';
import { TdxModule } from './tdx-module.ts';

/** Low halves of the leaves; bit 63 of RAX has led here. */
const INFO = 0n;
const INSTALL = 1n;
const LEAF_MASK = 0x7fff_ffff_ffff_ffffn;
const INTEL = 0x8086;
/** RDX after a failed INSTALL: whether the module before is still usable. */
const RECOVERABLE = 0n;
const UNRECOVERABLE = 1n;
const FAMILY_MODEL = ~0xf;

/** Checked and ready to be put into the SEAM range. */
interface Verified {
  readonly params: SeamldrParams;
  readonly pages: Uint8Array;
  readonly seamHash: Uint8Array;
}

/** @public */
export class SeamLoader implements SeamImage {
  readonly version: string;
  /** Installations that may still be made before the machine is reset. */
  remainingUpdates: number;
  readonly #machine: Machine;
  readonly #rules: SharedHpaRules;
  /** LPs that have asked in the installation under way, by index. */
  readonly #asked = new Set<number>();
  /** The module before, out of reach from the first request on. */
  #previous: SeamImage | null = null;

  constructor(machine: Machine, version: string, remainingUpdates: number) {
    this.version = version;
    this.remainingUpdates = remainingUpdates;
    this.#machine = machine;
    this.#rules = sharedHpaRules(machine);
  }

  seamcall(lp: LogicalProcessor): void {
    const { q } = lp.regs;
    const leaf = q[RAX]! & LEAF_MASK;
    if (leaf === INFO) q[RAX] = this.#info(lp);
    else if (leaf === INSTALL) q[RAX] = this.#install(lp);
    else q[RAX] = SEAMLDR_STATUS.PSEAMLDR_EBADPARAM;
  }

  /** State for a saved machine. The module before counts only while an installation is under way. */
  save() {
    const previous =
      this.#asked.size > 0 && this.#previous instanceof TdxModule ? this.#previous.save() : null;
    return {
      version: this.version,
      remainingUpdates: this.remainingUpdates,
      asked: this.#asked,
      previous,
    };
  }

  /** The loader that `save` was called on, again, on another machine. */
  static restored(machine: Machine, saved: ReturnType<SeamLoader['save']>): SeamLoader {
    const loader = new SeamLoader(machine, saved.version, saved.remainingUpdates);
    for (const index of saved.asked) loader.#asked.add(index);
    loader.#previous = saved.previous === null ? null : TdxModule.restored(machine, saved.previous);
    return loader;
  }

  #info(lp: LogicalProcessor): bigint {
    const buffer = sharedBuffer(this.#rules, lp.regs.q[RCX]!, SEAMLDR_INFO_SIZE);
    if (buffer === undefined) return SEAMLDR_STATUS.PSEAMLDR_EBADPARAM;
    const [major = 0, minor = 0, update = 0] = this.version.split('.').map(Number);
    const info = encodeSeamldrInfo({
      major,
      minor,
      update,
      buildDate: 0,
      buildNumber: 0,
      vendorId: INTEL,
      attributes: 0,
      remainingUpdates: this.remainingUpdates,
      seamReady: this.#machine.seam.module !== null,
    });
    writeShared(lp, buffer, info);
    return STATUS.TDX_SUCCESS;
  }

  /** Every LP asks once; the last one brings the parameters that count. */
  #install(lp: LogicalProcessor): bigint {
    const { q } = lp.regs;
    const { seam } = this.#machine;
    if (this.#asked.has(lp.index)) {
      q[RDX] = RECOVERABLE;
      return SEAMLDR_STATUS.PSEAMLDR_EBADCALL;
    }
    if (this.#asked.size === 0) {
      this.#previous = seam.module;
      seam.module = null;
    }
    this.#asked.add(lp.index);
    if (this.#asked.size < seam.mcheck.lps) {
      q[RDX] = 0n;
      return STATUS.TDX_SUCCESS;
    }
    const { status, damaged } = this.#finish(lp);
    this.#asked.clear();
    if (status !== STATUS.TDX_SUCCESS && !damaged) seam.module = this.#previous;
    q[RDX] = damaged ? UNRECOVERABLE : RECOVERABLE;
    return status;
  }

  #finish(lp: LogicalProcessor): { readonly status: bigint; readonly damaged: boolean } {
    const verified = this.#verify(lp);
    if (typeof verified === 'bigint') return { status: verified, damaged: false };
    // From here on the SEAM range is overwritten: a failure leaves no module.
    const release = this.#identify(verified);
    if (typeof release === 'bigint') return { status: release, damaged: true };
    const { seam } = this.#machine;
    if (verified.params.scenario === SEAMLDR_SCENARIO.load) seam.handoffData = new Uint8Array(0);
    loadModule(this.#machine, release);
    this.remainingUpdates--;
    return { status: STATUS.TDX_SUCCESS, damaged: false };
  }

  /** Everything that can be refused while the module before is still intact. */
  #verify(lp: LogicalProcessor): Verified | bigint {
    const params = this.#readParams(lp);
    if (params === undefined) return SEAMLDR_STATUS.PSEAMLDR_EBADPARAM;
    const sigstructPage = sharedBuffer(this.#rules, params.sigstruct, PAGE_4K)!;
    const sigstruct = decodeSeamSigstruct(readShared(lp, sigstructPage, SEAM_SIGSTRUCT_SIZE));
    if (sigstruct === undefined) return SEAMLDR_STATUS.PSEAMLDR_EBADSIG;
    if (!this.#supportsCpus(sigstruct.cpuidTable)) return SEAMLDR_STATUS.PSEAMLDR_EUNSUPCPU;
    if (this.remainingUpdates === 0) return SEAMLDR_STATUS.PSEAMLDR_EUNSPECERR;
    if (this.#machine.entropy.next64() === undefined) return SEAMLDR_STATUS.PSEAMLDR_ENOENTROPY;
    const pages = new Uint8Array(params.modulePages.length * PAGE_4K);
    for (const [i, page] of params.modulePages.entries()) {
      pages.set(readShared(lp, sharedBuffer(this.#rules, page, PAGE_4K)!, PAGE_4K), i * PAGE_4K);
    }
    return { params, pages, seamHash: sigstruct.seamHash };
  }

  #readParams(lp: LogicalProcessor): SeamldrParams | undefined {
    const buffer: SharedBuffer | undefined = sharedBuffer(this.#rules, lp.regs.q[RCX]!, SEAMLDR_PARAMS_SIZE);
    if (buffer === undefined) return undefined;
    const params = decodeSeamldrParams(readShared(lp, buffer, SEAMLDR_PARAMS_SIZE));
    if (params === undefined || params.version !== 0) return undefined;
    const { scenario, sigstruct, modulePages } = params;
    if (scenario !== SEAMLDR_SCENARIO.load && scenario !== SEAMLDR_SCENARIO.update) return undefined;
    const addresses = [...modulePages, sigstruct];
    if (addresses.some((hpa) => sharedBuffer(this.#rules, hpa, PAGE_4K) === undefined)) return undefined;
    return scenario === SEAMLDR_SCENARIO.update && this.#previous === null ? undefined : params;
  }

  /** Families and models of all packages are in the table; an empty table allows all. */
  #supportsCpus(table: readonly number[]): boolean {
    const known = new Set(table.map((fms) => fms & FAMILY_MODEL));
    const { packageFms } = this.#machine.seam.mcheck;
    return table.length === 0 || packageFms.every((fms) => known.has(fms & FAMILY_MODEL));
  }

  #identify({ params, pages, seamHash }: Verified): ModuleRelease | bigint {
    const release = releaseOfImage(pages);
    const isIntact = sha384(pages).every((byte, i) => byte === seamHash[i]);
    if (!isIntact || release === undefined) return SEAMLDR_STATUS.PSEAMLDR_EBADHASH;
    if (params.scenario === SEAMLDR_SCENARIO.load) return release;
    const { valid, hv } = readHandoffHeader(this.#machine.seam.handoffData);
    const { minUpdateHv, moduleHv } = release.handoff;
    return valid && minUpdateHv <= hv && hv <= moduleHv ? release : SEAMLDR_STATUS.PSEAMLDR_EBADHANDOFF;
  }
}

/** Where P-SEAMLDR accepts buffers; it reads the machine's own registers. */
function sharedHpaRules(machine: Machine): SharedHpaRules {
  const { physicalAddressBits, seamrr } = machine.description;
  return {
    hkidStartBit: machine.keyIdStartBit,
    hkidMask: (1n << BigInt(physicalAddressBits)) - (1n << BigInt(machine.keyIdStartBit)),
    privateHkidMin: machine.privateKeyIds.start,
    seamrr: seamrr ?? { start: 0, end: 0 },
  };
}
