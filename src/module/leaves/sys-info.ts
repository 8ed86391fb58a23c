/**
 * TDH.SYS.INFO: TDSYSINFO and the CMRs as structures (module facts 3, layouts).
 * In: RCX TDSYSINFO buffer, RDX its size, R8 CMR buffer, R9 its entries. Out: RDX bytes and R9 entries written.
 */
import { KIB } from '../../abi/address.ts';
import { OPERAND } from '../../abi/operands.ts';
import { R8, R9, RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { cpuidConfigsOf } from '../cpuid-config.ts';
import { CMR_ENTRIES, configurableBits, GLOBAL_VALUES, leafAndSubleaf } from '../global-values.ts';
import type { Leaf } from '../leaf.ts';
import { sharedBuffer, writeShared } from '../shared-buffer.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const sysInfo: Leaf = { handler: run, beforeReady: true };

const TDSYSINFO_SIZE = KIB;
const CMR_ENTRY_SIZE = 16;
const CPUID_CONFIG_OFFSET = 132;
const CPUID_CONFIG_SIZE = 24;
/** Offset of the flag that SYS.RD exists; releases without it leave the byte zero. */
const SYS_RD_OFFSET = 18;

/** Where TDSYSINFO repeats global metadata: offset, bytes, field. */
const FIELDS: readonly (readonly [offset: number, bytes: 2 | 4 | 8, field: string])[] = [
  [0, 4, 'SYS_ATTRIBUTES'],
  [4, 4, 'VENDOR_ID'],
  [8, 4, 'BUILD_DATE'],
  [12, 2, 'BUILD_NUM'],
  [14, 2, 'MINOR_VERSION'],
  [16, 2, 'MAJOR_VERSION'],
  [32, 2, 'MAX_TDMRS'],
  [34, 2, 'MAX_RESERVED_PER_TDMR'],
  [36, 2, 'PAMT_4K_ENTRY_SIZE'],
  [48, 2, 'TDCS_BASE_SIZE'],
  [52, 2, 'TDVPS_BASE_SIZE'],
  [64, 8, 'ATTRIBUTES_FIXED0'],
  [72, 8, 'ATTRIBUTES_FIXED1'],
  [80, 8, 'XFAM_FIXED0'],
  [88, 8, 'XFAM_FIXED1'],
  [128, 4, 'NUM_CPUID_CONFIG'],
];

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  const { q } = lp.regs;
  const [infoSize, cmrEntries] = [q[RDX]!, q[R9]!];
  q[RDX] = 0n;
  q[R9] = 0n;
  if (module.lps[lp.index] === undefined) return STATUS.TDX_SYS_LP_INIT_NOT_DONE;
  const platform = module.platform!;
  const info = sharedBuffer(platform, q[RCX]!, TDSYSINFO_SIZE);
  if (info === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  if (infoSize < TDSYSINFO_SIZE) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  // The module clears the first buffer before it looks at the second.
  writeShared(lp, info, new Uint8Array(TDSYSINFO_SIZE));
  const cmrs = sharedBuffer(platform, q[R8]!, CMR_ENTRIES * CMR_ENTRY_SIZE);
  if (cmrs === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R8);
  if (cmrEntries < CMR_ENTRIES) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R9);
  writeShared(lp, info, tdsysinfo(module));
  writeShared(lp, cmrs, cmrArray(module));
  q[RDX] = BigInt(TDSYSINFO_SIZE);
  q[R9] = BigInt(CMR_ENTRIES);
  return STATUS.TDX_SUCCESS;
}

function tdsysinfo(module: TdxModule): Uint8Array {
  const bytes = new Uint8Array(TDSYSINFO_SIZE);
  const view = new DataView(bytes.buffer);
  for (const [offset, size, field] of FIELDS) {
    const value = GLOBAL_VALUES[field]!(module, 0, 0);
    if (size === 8) view.setBigUint64(offset, value, true);
    else if (size === 4) view.setUint32(offset, Number(value), true);
    else view.setUint16(offset, Number(value), true);
  }
  bytes[SYS_RD_OFFSET] = module.release.version === '1.0' ? 0 : 1;
  for (const [i, config] of cpuidConfigsOf(module.version).entries()) {
    const at = CPUID_CONFIG_OFFSET + i * CPUID_CONFIG_SIZE;
    const [low, high] = configurableBits(module, config);
    view.setBigUint64(at, leafAndSubleaf(config), true);
    view.setBigUint64(at + 8, low, true);
    view.setBigUint64(at + 16, high, true);
  }
  return bytes;
}

function cmrArray({ machine }: TdxModule): Uint8Array {
  const bytes = new Uint8Array(CMR_ENTRIES * CMR_ENTRY_SIZE);
  const view = new DataView(bytes.buffer);
  for (const [i, { start, end }] of machine.cmrs.entries()) {
    view.setBigUint64(i * CMR_ENTRY_SIZE, BigInt(start), true);
    view.setBigUint64(i * CMR_ENTRY_SIZE + 8, BigInt(end - start), true);
  }
  return bytes;
}
