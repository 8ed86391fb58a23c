/** KeyIDs, CMRs and SMM ranges, as SYS.INIT finds them. */
import { type AddressRange, isAligned, overlaps, PAGE_4K } from '../abi/address.ts';
import { withInfo, withOperand } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import { fatal } from './fatal.ts';
import { MAX_HKIDS } from './kot.ts';
import type { KeyIdLayout } from './platform.ts';
import {
  bits,
  incorrectMsr,
  MODULE_MSR,
  type MsrRequirement,
  type MsrSample,
  meets,
} from './platform-msrs.ts';

/** TME_ACTIVATE bit 0. */
const LOCKED: MsrRequirement = { address: MODULE_MSR.TME_ACTIVATE, ones: bits(0) };

/** AES-XTS-128 or -256 with and without integrity: lowest bit and distance of the pair in both TME MSRs. */
interface Algorithms {
  readonly capability: bigint;
  readonly activate: bigint;
}
const WITHOUT_INTEGRITY: Algorithms = { capability: bits(0, 2), activate: bits(48, 50) };
const WITH_INTEGRITY: Algorithms = { capability: bits(1, 3), activate: bits(49, 51) };

/** SEAMRR_BASE and SEAMRR_MASK hold bits 51:25 of an address. */
const SEAMRR_BITS = (1n << 52n) - (1n << 25n);

/** Highest address of a CMR, whatever the CPU's own width. */
const MAX_CMR_END = 2 ** 52;

/** MTRRCAP bits. */
const SMRR_SUPPORTED = bits(11);
const SMRR2_SUPPORTED = bits(13);
const SMRR_LOCK_SUPPORTED = bits(14);
/** SMRR_PHYSMASK bits. */
const SMRR_LOCK = bits(10);
const SMRR_VALID = bits(11);
/** Address bits of the SMRR registers. */
const SMRR_ADDRESS = 0xffff_f000n;

/** Samples and checks the memory encryption MSRs; `integrity` is what MCHECK says TDX runs with. @internal */
export function sampleKeyIds(sample: MsrSample, maxPa: number, integrity: boolean): KeyIdLayout | bigint {
  const capability = sample.read(MODULE_MSR.TME_CAPABILITY);
  const activate = sample.read(MODULE_MSR.TME_ACTIVATE);
  if (!meets(activate, LOCKED)) return incorrectMsr(MODULE_MSR.TME_ACTIVATE);
  const algorithms = integrity ? WITH_INTEGRITY : WITHOUT_INTEGRITY;
  if ((capability & algorithms.capability) === 0n) return incorrectMsr(MODULE_MSR.TME_CAPABILITY);
  if ((activate & algorithms.activate) === 0n) return incorrectMsr(MODULE_MSR.TME_ACTIVATE);
  const hkidStartBit = maxPa - Number((activate >> 32n) & 0xfn);

  const partitioning = sample.read(MODULE_MSR.MKTME_KEYID_PARTITIONING);
  const shared = Number(partitioning & 0xffff_ffffn);
  const privateHkidMin = (shared + 1) >>> 0;
  const privateHkidMax = (shared + Number(partitioning >> 32n)) >>> 0;
  if (privateHkidMax >= MAX_HKIDS)
    return withOperand(STATUS.TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED, MAX_HKIDS);

  const seamrr = seamRange(sample.lp.rdmsr(MODULE_MSR.SEAMRR_BASE), sample.lp.rdmsr(MODULE_MSR.SEAMRR_MASK));
  const cacheSubBlocks = sample.read(MODULE_MSR.WBINVDP);
  if (sample.read(MODULE_MSR.WBNOINVDP) !== cacheSubBlocks) return incorrectMsr(MODULE_MSR.WBNOINVDP);
  return {
    hkidStartBit,
    hkidMask: (1n << BigInt(maxPa)) - (1n << BigInt(hkidStartBit)),
    privateHkidMin,
    privateHkidMax,
    seamrr,
    cacheSubBlocks,
  };
}

/** The lowest bit of the mask is the size. */
function seamRange(base: bigint, mask: bigint): AddressRange {
  const size = lowestBit(mask & SEAMRR_BITS);
  if (size === 0n) fatal('the SEAM range has no size');
  const start = Number(base & SEAMRR_BITS);
  return { start, end: start + Number(size) };
}

/** True when the CMRs ascend without overlap, are whole pages, and have no KeyID bits set. An empty entry is skipped. @internal */
export function areCmrsValid(cmrs: readonly AddressRange[], { hkidMask }: KeyIdLayout): boolean {
  let previousEnd = 0;
  for (const { start, end } of cmrs) {
    if (start === end) continue;
    if (end > MAX_CMR_END || !isAligned(start, PAGE_4K) || !isAligned(end, PAGE_4K)) return false;
    if (((BigInt(start) | BigInt(end - 1)) & hkidMask) !== 0n) return false;
    if (start < previousEnd) return false;
    previousEnd = end;
  }
  return true;
}

/** Samples and checks the SMM range registers; `smrr2` tells whether MCHECK lets the second pair count. @internal */
export function sampleSmrrs(sample: MsrSample, cmrs: readonly AddressRange[], smrr2: boolean): bigint {
  const mtrrcap = sample.read(MODULE_MSR.MTRRCAP);
  if ((mtrrcap & SMRR_SUPPORTED) === 0n) return STATUS.TDX_SMRR_NOT_SUPPORTED;
  if ((mtrrcap & SMRR_LOCK_SUPPORTED) === 0n) return STATUS.TDX_SMRR_LOCK_NOT_SUPPORTED;
  const pairs = [readPair(sample, MODULE_MSR.SMRR_BASE, MODULE_MSR.SMRR_MASK)];
  if (smrr2 && (mtrrcap & SMRR2_SUPPORTED) !== 0n) {
    pairs.push(readPair(sample, MODULE_MSR.SMRR2_BASE, MODULE_MSR.SMRR2_MASK));
  }
  for (const [index, { mask }] of pairs.entries()) {
    if ((mask & SMRR_LOCK) === 0n) return withOperand(STATUS.TDX_SMRR_NOT_LOCKED, index);
  }
  for (const [index, pair] of pairs.entries()) {
    if ((pair.mask & SMRR_VALID) === 0n) continue;
    const range = smmRange(pair);
    if (range === undefined) return withOperand(STATUS.TDX_INVALID_SMRR_CONFIGURATION, index);
    const cmr = cmrs.findIndex((entry) => entry.start < entry.end && overlaps(entry, range));
    if (cmr !== -1) return withInfo(STATUS.TDX_SMRR_OVERLAPS_CMR, index, cmr);
  }
  return STATUS.TDX_SUCCESS;
}

interface SmrrPair {
  readonly base: bigint;
  readonly mask: bigint;
}

function readPair(sample: MsrSample, baseMsr: number, maskMsr: number): SmrrPair {
  return { base: sample.read(baseMsr), mask: sample.read(maskMsr) };
}

/** The range, or undefined when the mask is zero or has holes, or the base is not a multiple of the size. */
function smmRange(pair: SmrrPair): AddressRange | undefined {
  const mask = pair.mask & SMRR_ADDRESS;
  const base = pair.base & SMRR_ADDRESS;
  const size = lowestBit(mask);
  if (size === 0n || mask !== 0x1_0000_0000n - size || (base & ~mask) !== 0n) return undefined;
  return { start: Number(base), end: Number(base + size) };
}

function lowestBit(value: bigint): bigint {
  return value & -value;
}
