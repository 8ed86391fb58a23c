/** A SeamImage that follows the initialisation protocol without checking anything, with fields a test can set. */

import type { AddressRange } from '../../src/abi/address.ts';
import { PAGE_1G, PAGE_4K } from '../../src/abi/address.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { R8, RAX, RCX, RDX, regNumber, setRegNumber } from '../../src/abi/registers.ts';
import { STATUS } from '../../src/abi/status-codes.ts';
import { decodeTdmrInfo, TDMR_INFO_SIZE, type TdmrInfo } from '../../src/abi/tdmr-info.ts';
import { ARRAY_FIELDS, SCALAR_FIELDS } from '../../src/kernel/sysinfo-fields.ts';
import type { LogicalProcessor } from '../../src/machine/lp.ts';
import type { SeamImage } from '../../src/machine/seam.ts';

const NO_RBP_MOD = 1n << 18n;

export class ScriptedModule implements SeamImage {
  readonly version = 'scripted';
  /** Values by metadata field id. */
  readonly fields = new Map<bigint, bigint>();
  /** Leaf numbers in the order they were called. */
  readonly calls: number[] = [];
  /** What SYS.CONFIG was given. */
  tdmrs: TdmrInfo<bigint>[] = [];
  configR8 = 0;
  /** Status by leaf, instead of doing the work. */
  readonly refuse = new Map<number, bigint>();
  readonly #done = new Map<number, number>();

  constructor(cmrs: readonly AddressRange[]) {
    for (const { id, path } of SCALAR_FIELDS) this.set(path, DEFAULTS[path] ?? 0n, id);
    this.setCmrs(cmrs);
  }

  set(path: string, value: bigint, id = fieldId(path)): void {
    this.fields.set(id, value);
  }

  setCmrs(cmrs: readonly AddressRange[], count = cmrs.length): void {
    this.set('cmr.count', BigInt(count));
    const bases = arrayId('cmr.bases');
    const sizes = arrayId('cmr.sizes');
    for (let i = 0; i < count; i++) {
      const { start, end } = cmrs[i] ?? { start: 0, end: 0 };
      this.fields.set(bases + BigInt(i), BigInt(start));
      this.fields.set(sizes + BigInt(i), BigInt(end - start));
    }
  }

  seamcall(lp: LogicalProcessor): void {
    const leaf = lp.regs.d[2 * RAX]!;
    this.calls.push(leaf);
    lp.regs.q[RAX] = this.refuse.get(leaf) ?? this.#execute(lp, leaf);
  }

  #execute(lp: LogicalProcessor, leaf: number): bigint {
    const { regs } = lp;
    if (leaf === TDH.sysRd) {
      const value = this.fields.get(regs.q[RDX]!);
      if (value === undefined) return STATUS.TDX_METADATA_FIELD_ID_INCORRECT;
      regs.q[R8] = value;
    } else if (leaf === TDH.sysConfig) {
      this.configR8 = regNumber(regs, R8);
      const addresses = lp.load(regNumber(regs, RCX), 8 * regNumber(regs, RDX));
      const view = new DataView(addresses.buffer);
      this.tdmrs = Array.from({ length: addresses.length / 8 }, (_, i) =>
        decodeTdmrInfo(lp.load(Number(view.getBigUint64(8 * i, true)), TDMR_INFO_SIZE)),
      );
    } else if (leaf === TDH.sysTdmrInit) this.#initTdmr(lp);
    return STATUS.TDX_SUCCESS;
  }

  /** One call per GiB, and the PAMT's first page goes to the global KeyID. */
  #initTdmr(lp: LogicalProcessor): void {
    const base = regNumber(lp.regs, RCX);
    const tdmr = this.tdmrs.find((candidate) => Number(candidate.base) === base)!;
    const pamt = Number(tdmr.pamt4kBase);
    lp.machine.memory.claim(pamt, pamt + PAGE_4K, this.configR8 & 0xffff);
    const next = (this.#done.get(base) ?? base) + PAGE_1G;
    this.#done.set(base, next);
    setRegNumber(lp.regs, RDX, next);
  }
}

const DEFAULTS: Readonly<Record<string, bigint>> = {
  'version.major': 1n,
  'version.minor': 5n,
  'version.update': 7n,
  'version.buildDate': 20240129n,
  'version.buildNumber': 698n,
  'version.vendorId': 0x8086n,
  'features.features0': NO_RBP_MOD,
  'tdmr.maxTdmrs': 64n,
  'tdmr.maxReservedPerTdmr': 16n,
  'tdmr.pamt4kEntrySize': 16n,
  'tdmr.pamt2mEntrySize': 16n,
  'tdmr.pamt1gEntrySize': 16n,
  'tdConf.maxVcpusPerTd': 576n,
};

function fieldId(path: string): bigint {
  return SCALAR_FIELDS.find((field) => field.path === path)!.id;
}

function arrayId(path: string): bigint {
  return ARRAY_FIELDS.find((field) => field.path === path)!.id;
}
