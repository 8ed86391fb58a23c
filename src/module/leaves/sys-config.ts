/**
 * TDH.SYS.CONFIG: gives the module its TDMRs and its own KeyID.
 * In: RCX address of an array of TDMR_INFO addresses, RDX how many, R8 KeyID (15:0) and dynamic PAMT (16).
 */

import { hasFeature } from '../../abi/features.ts';
import { OPERAND } from '../../abi/operands.ts';
import { R8, RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { decodeTdmrInfo, TDMR_INFO_ALIGNMENT, TDMR_INFO_SIZE } from '../../abi/tdmr-info.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { MAX_DYNAMIC_PAMT_KEYID_START_BIT } from '../global-values.ts';
import { HKID_STATE } from '../kot.ts';
import type { Leaf } from '../leaf.ts';
import { Pamt } from '../pamt.ts';
import { readShared, type SharedBuffer, sharedBuffer } from '../shared-buffer.ts';
import { TdmrChecker } from '../tdmr-checks.ts';
import { Tdmr } from '../tdmr-table.ts';
import type { TdxModule } from '../tdx-module.ts';

/** @internal */
export const sysConfig: Leaf = { handler: run, beforeReady: true };

const KEY_ID_MASK = 0xffffn;
const DYNAMIC_PAMT = 1n << 16n;

function run(module: TdxModule, lp: LogicalProcessor): bigint {
  if (!module.globalLock.tryExclusive()) return STATUS.TDX_SYS_BUSY;
  try {
    return configure(module, lp);
  } finally {
    module.globalLock.releaseExclusive();
  }
}

function configure(module: TdxModule, lp: LogicalProcessor): bigint {
  const { q } = lp.regs;
  const { release } = module;
  if (module.sysState !== 'SYSINIT_DONE' || !module.allLpsInitialised)
    return STATUS.TDX_SYS_CONFIG_NOT_PENDING;
  const platform = module.platform!;
  const array = sharedBuffer(platform, q[RCX]!, TDMR_INFO_ALIGNMENT);
  if (array === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const count = q[RDX]!;
  if (count < 1n || count > release.maxTdmrs) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  const options = q[R8]!;
  const known = hasFeature(release.features0, 'DYNAMIC_PAMT') ? KEY_ID_MASK | DYNAMIC_PAMT : KEY_ID_MASK;
  const keyId = Number(options & KEY_ID_MASK);
  if ((options & ~known) !== 0n || !module.isPrivateKeyId(keyId)) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R8);
  }
  // From here on the KeyID is the module's, even if a later check fails.
  module.kot.states[keyId] = HKID_STATE.RESERVED;
  module.globalKeyId = keyId;
  const dynamicPamt = (options & DYNAMIC_PAMT) !== 0n;
  if (dynamicPamt && platform.hkidStartBit > MAX_DYNAMIC_PAMT_KEYID_START_BIT) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R8);
  }
  const tdmrs = takeTdmrs(module, lp, array, Number(count), dynamicPamt);
  if (typeof tdmrs === 'bigint') return tdmrs;
  module.pamt = new Pamt(module.machine.memory, tdmrs, keyId, dynamicPamt);
  module.configuredPackages = 0;
  module.sysState = 'SYSCONFIG_DONE';
  return STATUS.TDX_SUCCESS;
}

function takeTdmrs(
  module: TdxModule,
  lp: LogicalProcessor,
  array: SharedBuffer,
  count: number,
  dynamicPamt: boolean,
): readonly Tdmr[] | bigint {
  const platform = module.platform!;
  const checker = new TdmrChecker({
    cmrs: module.machine.cmrs,
    keyIdStartBit: platform.hkidStartBit,
    maxPaBits: platform.maxPa,
    dynamicPamt,
  });
  const addresses = new DataView(readShared(lp, array, 8 * count).buffer);
  for (let i = 0; i < count; i++) {
    const buffer = sharedBuffer(platform, addresses.getBigUint64(8 * i, true), TDMR_INFO_ALIGNMENT);
    if (buffer === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
    const status = checker.check(decodeTdmrInfo(readShared(lp, buffer, TDMR_INFO_SIZE)));
    if (status !== STATUS.TDX_SUCCESS) return status;
  }
  return checker.accepted.map(({ range, reserved, pamt: [k4, m2, g1] }) => {
    const bases = { base4k: k4.start, base2m: m2.start, base1g: g1.start };
    return new Tdmr(range.start, range.end - range.start, bases, reserved);
  });
}
