/** The platform as TDH.SYS.INIT samples and checks it on the LP that executes it. */
import { STATUS } from '../abi/status-codes.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import type { CpuFacts, KeyIdLayout, VmxControls } from './platform.ts';
import { sampleCpuid } from './platform-cpuid.ts';
import { areCmrsValid, sampleKeyIds, sampleSmrrs } from './platform-memory.ts';
import {
  incorrectMsr,
  LIMIT_CPUID_MAXVAL,
  MISC_ENABLE,
  MsrSample,
  meets,
  sampleCapabilities,
} from './platform-msrs.ts';
import { sampleVmx } from './platform-vmx.ts';

/** CPUID(1).EAX of the first Granite Rapids and Granite Rapids-D steppings. */
const EARLY_STEPPINGS: ReadonlySet<number> = new Set([0xa06d0, 0xa06e0]);

/** What the hardware alone tells. @internal */
export interface HardwareSample extends CpuFacts, KeyIdLayout {
  readonly lps: number;
  readonly packages: number;
  readonly fms: number;
  readonly earlyStepping: boolean;
  readonly msrs: ReadonlyMap<number, bigint>;
  readonly vmx: VmxControls;
  readonly vmxL2: VmxControls;
}

/** The sample, or the status of the first check that fails, its outputs set. @internal */
export function samplePlatform(lp: LogicalProcessor): HardwareSample | bigint {
  const { cmrs, seam } = lp.machine;
  const { packageFms, lps, integrity, smrr2 } = seam.mcheck;
  const fms = lowestStepping(packageFms);
  const earlyStepping = EARLY_STEPPINGS.has(packageFms[0]!);
  const sample = new MsrSample(lp);

  const capabilities = sampleCapabilities(sample, earlyStepping);
  if (capabilities !== STATUS.TDX_SUCCESS) return capabilities;
  const misc = sample.read(MISC_ENABLE.address);
  if ((misc & LIMIT_CPUID_MAXVAL) !== 0n) return STATUS.TDX_LIMIT_CPUID_MAXVAL_SET;
  if (!meets(misc, MISC_ENABLE)) return incorrectMsr(MISC_ENABLE.address);
  const cpu = sampleCpuid(lp, fms, earlyStepping);
  if (typeof cpu === 'bigint') return cpu;
  const controls = sampleVmx(sample, cpu.features);
  if (typeof controls === 'bigint') return controls;
  const keyIds = sampleKeyIds(sample, cpu.maxPa, integrity);
  if (typeof keyIds === 'bigint') return keyIds;
  if (!areCmrsValid(cmrs, keyIds)) return STATUS.TDX_CMR_LIST_INVALID;
  const smrrs = sampleSmrrs(sample, cmrs, smrr2);
  if (smrrs !== STATUS.TDX_SUCCESS) return smrrs;
  return {
    ...cpu,
    ...keyIds,
    ...controls,
    lps,
    packages: packageFms.length,
    fms,
    earlyStepping,
    msrs: sample.values,
  };
}

/** Family and model are alike in all packages; the platform counts as the lowest stepping among them. */
function lowestStepping(packageFms: readonly number[]): number {
  const stepping = Math.min(...packageFms.map((fms) => fms & 0xf));
  return packageFms[0]! - (packageFms[0]! & 0xf) + stepping;
}
