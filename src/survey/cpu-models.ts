/** Processors by the family and model numbers in `CPU0: ... (family: 0x6, model: 0x8f, ...)`. */
import type { CpuModel } from '../machine/description.ts';

/** Family 6 models with TDX (Intel's list of CPUID signatures). */
const FAMILY_6: Readonly<Record<number, CpuModel>> = {
  143: 'sapphire-rapids',
  207: 'emerald-rapids',
  173: 'granite-rapids',
  174: 'granite-rapids',
  175: 'sierra-forest',
};

/** The model the numbers stand for; undefined for one without TDX. @internal */
export function cpuModelOf(family: number, model: number): CpuModel | undefined {
  return family === 6 ? FAMILY_6[model] : undefined;
}
