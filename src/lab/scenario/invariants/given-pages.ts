/** Looks on at every SEAMCALL that gives the module a page, and remembers the first that no initialised TDMR holds. */
import { type AddressRange, hex, PAGE_2M, PAGE_4K } from '../../../abi/address.ts';
import { hostLeafName, TDH } from '../../../abi/leaves.ts';
import { subtract } from '../../../abi/ranges.ts';
import { R8, RAX, RCX, regNumber } from '../../../abi/registers.ts';
import type { EnabledTdx } from '../../../kernel/enable.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';
import type { SeamcallObserver } from '../../../machine/seam.ts';

/** Register of the page, by leaf number. */
const PAGE_REGISTER: ReadonlyMap<number, number> = new Map([
  [TDH.mngCreate, RCX],
  [TDH.mngAddcx, RCX],
  [TDH.vpCreate, RCX],
  [TDH.vpAddcx, RCX],
  [TDH.memSeptAdd, R8],
  [TDH.memPageAdd, R8],
  [TDH.memPageAug, R8],
]);

/** By leaf number: the register, or 255 for a leaf that takes no page. */
const REGISTERS = new Uint8Array(256).fill(255);
for (const [leaf, register] of PAGE_REGISTER) REGISTERS[leaf] = register;

/** @internal */
export class GivenPages implements SeamcallObserver {
  /** The first page outside them, in words; null while there is none. */
  wrong: string | null = null;
  #enabled: EnabledTdx | null = null;
  #usable: readonly AddressRange[] = [];
  /** Whose TDMRs count: kexec starts another kernel. */
  readonly #kernel: () => HostKernel;

  constructor(kernel: () => HostKernel) {
    this.#kernel = kernel;
  }

  before({ regs }: LogicalProcessor): void {
    const low = regs.d[2 * RAX]!;
    const leaf = low & 0xffff;
    const register = regs.d[2 * RAX + 1] === 0 ? (REGISTERS[leaf] ?? 255) : 255;
    if (register === 255) return;
    const { enabled } = this.#kernel();
    // A kernel that tries a TD before it calls the module initialised keeps its TDMRs to itself until then.
    if (enabled === null) return;
    const address = regNumber(regs, register);
    const isLarge = leaf === TDH.memPageAug && (regs.d[2 * RCX]! & 7) === 1;
    const end = address + (isLarge ? PAGE_2M : PAGE_4K);
    if (this.#ranges(enabled).some((range) => range.start <= address && end <= range.end)) return;
    this.wrong ??= `${hostLeafName(leaf)} was given ${hex(address)}, which no initialised TDMR holds`;
  }

  after(): void {}

  /** TDMRs less their reserved areas, of the module as it is initialised now. */
  #ranges(enabled: EnabledTdx): readonly AddressRange[] {
    if (enabled !== this.#enabled) {
      this.#enabled = enabled;
      const reserved = enabled.tdmrs.flatMap(({ reservedAreas }) => reservedAreas);
      this.#usable = subtract(enabled.tdmrs, reserved);
    }
    return this.#usable;
  }
}
