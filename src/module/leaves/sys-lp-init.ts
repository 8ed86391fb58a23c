/** TDH.SYS.LP.INIT: compares one LP with the platform snapshot, after which it may execute the other leaves. */
import { CACHE_LINE } from '../../abi/address.ts';
import { R8, RCX, RDX } from '../../abi/registers.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { hkidOf, type InitializedLp, type PlatformSnapshot } from '../platform.ts';
import { compareCpuid } from '../platform-cpuid.ts';
import {
  COMPARED_AFTER_CPUID,
  COMPARED_BEFORE_CPUID,
  compareMsrs,
  LIMIT_CPUID_MAXVAL,
  MODULE_MSR,
} from '../platform-msrs.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const sysLpInit: Leaf = { handler: run, beforeReady: true };

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  for (const output of [RCX, RDX, R8]) lp.regs.q[output] = 0n;
  if (!module.globalLock.tryShared()) return STATUS.TDX_SYS_BUSY;
  try {
    if (module.sysState !== 'SYSINIT_DONE') return STATUS.TDX_SYS_LP_INIT_NOT_PENDING;
    if (module.lps[lp.index] !== undefined) return STATUS.TDX_SYS_LP_INIT_DONE;
    const platform = module.platform!;
    const place = compare(lp, platform);
    if (typeof place === 'bigint') return place;
    clearFatalInfo(lp, platform);
    module.lps[lp.index] = place;
    return STATUS.TDX_SUCCESS;
  } finally {
    module.globalLock.releaseShared();
  }
}

/** Where the LP is, or the status of the first difference. */
function compare(lp: LogicalProcessor, platform: PlatformSnapshot): InitializedLp | bigint {
  if (lp.machine.seam.seamopsCapabilities !== platform.seamCapabilities) {
    return STATUS.TDX_INCOMPATIBLE_SEAM_CAPABILITIES;
  }
  const before = compareMsrs(lp, platform.msrs, COMPARED_BEFORE_CPUID);
  if (before !== STATUS.TDX_SUCCESS) return before;
  if ((lp.rdmsr(MODULE_MSR.MISC_ENABLE) & LIMIT_CPUID_MAXVAL) !== 0n)
    return STATUS.TDX_LIMIT_CPUID_MAXVAL_SET;
  const place = compareCpuid(lp, platform);
  if (typeof place === 'bigint') return place;
  const after = compareMsrs(lp, platform.msrs, COMPARED_AFTER_CPUID);
  return after === STATUS.TDX_SUCCESS ? place : after;
}

/** Each LP maps the line for fatal-error details and zeroes it. */
function clearFatalInfo(lp: LogicalProcessor, platform: PlatformSnapshot): void {
  const hpa = platform.fatalInfoHpa;
  if (hpa === null) return;
  lp.movdir64b(Number(hpa & ~platform.hkidMask), new Uint8Array(CACHE_LINE), hkidOf(platform, hpa));
}
