/** TD_PARAMS as the lab's TDs have them: a 4-level secure EPT, x87 and SSE, and of the CPUID what the machine has. */
import { encodeTdParams } from '../../abi/td-params.ts';
import type { Cpu } from '../../kernel/cpu.ts';
import type { TdxSysinfo } from '../../kernel/sysinfo.ts';

const XFAM_X87_SSE = 3n;
const SEPT_VE_DISABLE = 1n << 28n;
const NO_RBP_MOD = 1n << 2n;
/** EPTP of a 4-level tree: write-back, levels less one in bits 5:3. */
const EPTP_4_LEVEL = 6n | (3n << 3n);
const TSC_1_GHZ = 40;
const NO_SUBLEAF = 0xffff_ffff;

/** The structure's bytes, for TDH.MNG.INIT. @internal */
export function tdParamsBytes(
  cpu: Cpu,
  sysinfo: TdxSysinfo,
  options: { readonly vcpus?: number; readonly attributes?: bigint },
): Uint8Array {
  return encodeTdParams({
    attributes: options.attributes ?? SEPT_VE_DISABLE,
    xfam: XFAM_X87_SSE,
    maxVcpus: Math.max(options.vcpus ?? 1, 1),
    eptpControls: EPTP_4_LEVEL,
    configFlags: NO_RBP_MOD,
    tscFrequency: TSC_1_GHZ,
    mrConfigId: new Uint8Array(48),
    mrOwner: new Uint8Array(48),
    mrOwnerConfig: new Uint8Array(48),
    cpuid: cpuidOf(cpu, sysinfo),
  });
}

/** Of every leaf that the host may configure, what the machine has of the configurable bits. */
function cpuidOf({ lp }: Cpu, { tdConf }: TdxSysinfo): (readonly [number, number, number, number])[] {
  return tdConf.cpuidConfigLeaves.map((id, i) => {
    const leaf = Number(id & 0xffff_ffffn);
    const subleaf = Number(id >> 32n);
    const native = lp.cpuid(leaf, subleaf === NO_SUBLEAF ? 0 : subleaf);
    const [ab = 0n, cd = 0n] = tdConf.cpuidConfigValues.slice(2 * i, 2 * i + 2);
    const masks = [ab & 0xffff_ffffn, ab >> 32n, cd & 0xffff_ffffn, cd >> 32n].map(Number);
    return native.map((value, j) => (value & masks[j]!) >>> 0) as unknown as [number, number, number, number];
  });
}
