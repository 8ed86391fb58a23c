/** TDs on a module that is ready: built through the leaves, with pages taken from a small pool in order. */
import { GIB, MIB, PAGE_4K } from '../../src/abi/address.ts';
import { TDH } from '../../src/abi/leaves.ts';
import type { RegisterName } from '../../src/abi/registers.ts';
import type { TdmrInfo } from '../../src/abi/tdmr-info.ts';
import { findRelease } from '../../src/module/releases.ts';
import { TrustDomain } from '../../src/module/td/trust-domain.ts';
import { type ModuleMachine, moduleMachine } from './module-machine.ts';
import { configure, finish, initialise, ONE_TDMR } from './ready-module.ts';

/** Where the host keeps TD_PARAMS and pages to copy. */
const TD_PARAMS = 0x20_0000;
export const SOURCE_PAGE = 0x30_0000;
/** The second TDMR of `twoTdmrs` is a whole free GiB. */
export const FREE_GIB = 8 * GIB;
const XFAM_X87_SSE_AVX = 0x7n;
const WRITE_BACK = 6;
const TDX_TSC_FREQUENCY = 40;
const VCPU_PAGES = 5;
/** RAX bits 23:16. */
const VERSION_1 = 1 << 16;

export interface TdOptions {
  readonly dynamicPamt?: boolean;
  /** A second TDMR of 1 GiB, wholly free, at `FREE_GIB`. */
  readonly twoTdmrs?: boolean;
  readonly l2Vms?: number;
  readonly attributes?: bigint;
  readonly configFlags?: bigint;
  readonly xfam?: bigint;
  /** Levels of the secure EPT: 4 or 5. */
  readonly levels?: 4 | 5;
  /** Add a vCPU and finalise, so that TLB tracking is required. */
  readonly runnable?: boolean;
  /** Told of the machine before the first call. */
  readonly observe?: (host: ModuleMachine) => void;
  /** Give the vCPU an x2APIC id. */
  readonly x2apicId?: bigint;
  /** KeyID; 41 unless given. */
  readonly keyId?: number;
  /** Release of the module; 1.5.25 unless given. */
  readonly release?: string;
}

/** A TD, and calls on it. */
export interface ReadyTd extends ModuleMachine {
  readonly td: TrustDomain;
  readonly tdr: bigint;
  readonly tdvpr: bigint;
  /** The next free 4 KiB page, with its metadata in place. */
  readonly page: () => bigint;
  /** Executes a leaf on a page of the TD: RCX the guest address and level, RDX the TD. */
  readonly on: (
    leaf: number,
    gpa: number,
    level?: number,
    operands?: Partial<Record<RegisterName, bigint>>,
  ) => Partial<Record<RegisterName, bigint>>;
  /** Adds the secure EPT pages for `gpa` down to the table of `level`. */
  readonly addTables: (gpa: number, level: number) => void;
  /** BLOCK and TRACK: what REMOVE and the like need of a TD that runs. */
  readonly blockAndTrack: (gpa: number, level?: number) => void;
}

/** Builds a TD. Throws when a call fails. */
export function readyTd(options: TdOptions = {}): ReadyTd {
  const host = moduleMachine({}, findRelease(options.release ?? '1.5.25')!);
  options.observe?.(host);
  initialise(host);
  const infos: TdmrInfo[] = [ONE_TDMR];
  if (options.twoTdmrs === true) {
    const shift = FREE_GIB - ONE_TDMR.base;
    infos.push({
      ...ONE_TDMR,
      base: FREE_GIB,
      pamt1gBase: ONE_TDMR.pamt1gBase + shift,
      pamt2mBase: ONE_TDMR.pamt2mBase + shift,
      pamt4kBase: ONE_TDMR.pamt4kBase + shift,
      reserved: [],
    });
  }
  const dynamicPamt = options.dynamicPamt === true;
  check(configure(host, infos, { dynamicPamt }));
  finish(host, infos);
  return buildTd(host, pagePool(host, dynamicPamt), options);
}

/** Builds a further TD beside `first`, with pages from the same pool. */
export function anotherTd({ machine, module, call, status, page }: ReadyTd, options: TdOptions): ReadyTd {
  return buildTd({ machine, module, call, status }, page, options);
}

function buildTd(host: ModuleMachine, page: () => bigint, options: TdOptions): ReadyTd {
  const need = (leaf: number, operands: Partial<Record<RegisterName, bigint>>): void =>
    check(host.status(leaf, operands));
  const tdr = page();
  const { l2Vms = 0, levels = 4 } = options;
  need(TDH.mngCreate, { rcx: tdr, rdx: BigInt(options.keyId ?? 41) });
  for (const lp of [0, 2]) check(host.status(TDH.mngKeyConfig, { rcx: tdr }, lp));
  for (let i = 0; i < 6 + l2Vms; i++) need(TDH.mngAddcx, { rcx: page(), rdx: tdr });
  host.machine.memory.write(TD_PARAMS, tdParams(options), 0);
  need(TDH.mngInit, { rcx: tdr, rdx: BigInt(TD_PARAMS) });
  const td = new TrustDomain(host.module, Number(tdr));
  let tdvpr = 0n;
  if (options.runnable === true) {
    tdvpr = page();
    need(TDH.vpCreate, { rcx: tdvpr, rdx: tdr });
    for (let i = 0; i < VCPU_PAGES + 3 * l2Vms; i++) need(TDH.vpAddcx, { rcx: page(), rdx: tdvpr });
    const identified = options.x2apicId !== undefined;
    need(TDH.vpInit | (identified ? VERSION_1 : 0), { rcx: tdvpr, r8: options.x2apicId ?? 0n });
    need(TDH.mrFinalize, { rcx: tdr });
  }
  const on: ReadyTd['on'] = (leaf, gpa, level = 0, operands = {}) =>
    host.call(leaf, { rcx: BigInt(gpa) | BigInt(level), rdx: tdr, ...operands });
  return {
    ...host,
    td,
    tdr,
    tdvpr,
    page,
    on,
    addTables: (gpa, level) => {
      for (let at = levels - 1; at > level; at--) {
        const span = PAGE_4K * 512 ** at;
        need(TDH.memSeptAdd, { rcx: BigInt(gpa - (gpa % span)) | BigInt(at), rdx: tdr | 1n, r8: page() });
      }
    },
    blockAndTrack: (gpa, level = 0) => {
      check(on(TDH.memRangeBlock, gpa, level).rax!);
      need(TDH.memTrack, { rcx: tdr });
    },
  };
}

/** Pages from 4 GiB on; with dynamic PAMT the first 2 MiB holds the page pairs. */
function pagePool(host: ModuleMachine, dynamicPamt: boolean): () => bigint {
  let donor = ONE_TDMR.base;
  let next = ONE_TDMR.base + (dynamicPamt ? 2 * MIB : 0);
  return () => {
    if (dynamicPamt && next % (2 * MIB) === 0) {
      const pair = { rcx: BigInt(next) | 1n, rdx: BigInt(donor), r8: BigInt(donor + PAGE_4K) };
      check(host.status(TDH.phymemPamtAdd, pair));
      donor += 2 * PAGE_4K;
    }
    const page = next;
    next += PAGE_4K;
    return BigInt(page);
  };
}

function tdParams(options: TdOptions): Uint8Array {
  const { attributes = 0n, xfam = XFAM_X87_SSE_AVX, l2Vms = 0, levels = 4, configFlags = 0n } = options;
  const bytes = new Uint8Array(1024);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, attributes, true);
  view.setBigUint64(8, xfam, true);
  view.setUint16(16, 4, true);
  view.setUint8(18, l2Vms);
  view.setBigUint64(24, BigInt(WRITE_BACK | ((levels - 1) << 3)), true);
  view.setBigUint64(32, configFlags | (levels === 5 ? 1n : 0n), true);
  view.setUint16(40, TDX_TSC_FREQUENCY, true);
  return bytes;
}

function check(status: bigint): void {
  if (status !== 0n) throw new Error(`the call failed with 0x${status.toString(16)}`);
}
