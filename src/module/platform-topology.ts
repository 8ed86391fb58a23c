/** CPUID leaf 0x1F: how the levels of the topology divide an x2APIC id, and whether WBINVD reaches a whole package. */
import type { CpuidQuad } from '../abi/cpuid-policy.ts';
import { OPERAND } from '../abi/operands.ts';
import { withOperand } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import { fatal } from './fatal.ts';
import type { InitializedLp, X2ApicLayout } from './platform.ts';

/** Level types (ECX[15:8]); the ones between core and the limit are module, tile and die. */
const INVALID = 0;
const SMT = 1;
const CORE = 2;
const LEVEL_LIMIT = 6;

const NOT_SUPPORTED = withOperand(STATUS.TDX_CPUID_LEAF_NOT_SUPPORTED, OPERAND.RAX);

/** Follows the subleaves in ascending order. @internal */
export class TopologyScan {
  #coreShift = 0;
  #coreMask = 0;
  #packageShift = 0;
  #coreSeen = false;
  #shift = -1;
  #previousType = INVALID;

  get layout(): X2ApicLayout {
    return { coreShift: this.#coreShift, coreMask: this.#coreMask, packageShift: this.#packageShift };
  }

  /** Takes the next subleaf; `l3` is CPUID(4.3). Returns the status of its checks. */
  scan(subleaf: number, [eax, , ecx]: CpuidQuad, l3: CpuidQuad): bigint {
    if ((ecx & 0xff) !== subleaf) return STATUS.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED;
    const type = (ecx >>> 8) & 0xff;
    const status = type === INVALID ? this.#end(subleaf, l3) : this.#level(type, eax & 0x1f);
    this.#previousType = type;
    return status;
  }

  #level(type: number, shift: number): bigint {
    if (type <= this.#previousType || type >= LEVEL_LIMIT)
      return STATUS.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED;
    this.#shift = shift;
    if (type === SMT) this.#coreShift = shift;
    if (type === CORE) this.#coreSeen = true;
    return STATUS.TDX_SUCCESS;
  }

  /** An invalid level ends the list; the shift of the level before it leads to the package. */
  #end(subleaf: number, l3: CpuidQuad): bigint {
    if (subleaf === 0 || !this.#coreSeen) return NOT_SUPPORTED;
    if (this.#previousType === INVALID) return STATUS.TDX_SUCCESS;
    if (this.#shift < this.#coreShift) fatal('CPUID(0x1F) gives a package fewer id bits than a core');
    this.#packageShift = this.#shift;
    this.#coreMask = 2 ** (this.#shift - this.#coreShift) - 1;
    // The ids that share the L3 cache, rounded up to a power of two, must be exactly those of one package.
    const sharing = (l3[0] >>> 14) & 0xfff;
    return sharing >>> (this.#shift - 1) === 1 ? STATUS.TDX_SUCCESS : STATUS.TDX_INVALID_WBINVD_SCOPE;
  }
}

/** Cuts an x2APIC id into package and core. @internal */
export function locate({ coreShift, coreMask, packageShift }: X2ApicLayout, x2apicId: number): InitializedLp {
  return { package: x2apicId >>> packageShift, core: ((x2apicId >>> coreShift) & coreMask) >>> 0 };
}
