/** The CPUID page: what the hypervisor tells the guest of its processor, and what the firmware lets pass. */
import type { LogicalProcessor } from '../../lp.ts';
import type { CpuidResult } from '../../native-platform.ts';
import { SNP_CPUID_FUNCTION, SNP_CPUID_HEADER, SNP_CPUID_MAX_COUNT } from './commands.ts';

/** Leaves whose registers are sets of features: a guest has none that the processor lacks. Registers by their number. */
const FEATURE_REGISTERS: Readonly<Record<number, readonly (keyof typeof REGISTERS)[]>> = {
  1: ['ecx', 'edx'],
  7: ['ebx', 'ecx', 'edx'],
  2147483649: ['ecx', 'edx'],
};
const REGISTERS = { eax: 0, ebx: 1, ecx: 2, edx: 3 } as const;
/** CPUID(1).ECX: OSXSAVE follows CR4, and the hypervisor bit is the hypervisor's to set. */
const FREE_BITS: Readonly<Record<number, number>> = { 1: 0x8800_0000 };

/** The page as it should have been, or null when it is right. `page` has 4096 bytes. @internal */
export function correctedCpuidPage(page: Uint8Array, lp: LogicalProcessor): Uint8Array | null {
  const { count } = SNP_CPUID_HEADER.decode(page);
  const corrected = page.slice();
  if (count > SNP_CPUID_MAX_COUNT) {
    SNP_CPUID_HEADER.patch(corrected, { count: SNP_CPUID_MAX_COUNT });
    return corrected;
  }
  let isRight = true;
  for (let i = 0; i < count; i++) {
    const at = SNP_CPUID_HEADER.bytes + i * SNP_CPUID_FUNCTION.bytes;
    const claimed = SNP_CPUID_FUNCTION.decode(page, at);
    const real = lp.cpuid(claimed.eax_in, claimed.ecx_in);
    for (const register of FEATURE_REGISTERS[claimed.eax_in] ?? []) {
      const value = claimed[register];
      const allowed = allowedBits(claimed.eax_in, register, real);
      if ((value & ~allowed) === 0) continue;
      isRight = false;
      SNP_CPUID_FUNCTION.patch(corrected, { [register]: (value & allowed) >>> 0 }, at);
    }
  }
  return isRight ? null : corrected;
}

function allowedBits(leaf: number, register: keyof typeof REGISTERS, real: CpuidResult): number {
  const free = register === 'ecx' ? (FREE_BITS[leaf] ?? 0) : 0;
  return real[REGISTERS[register]] | free;
}
