/** TDH.MNG.INIT: configures a TD from TD_PARAMS (module facts 6). */

import { PAGE_4K } from '../../abi/address.ts';
import { TDH } from '../../abi/leaves.ts';
import { MEASUREMENT_BYTES } from '../../abi/measurement.ts';
import { OP_STATE } from '../../abi/op-states.ts';
import { OPERAND } from '../../abi/operands.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { R8, RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import { TD_PARAMS_BYTES } from '../../abi/td-params.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import type { Leaf } from '../leaf.ts';
import { LIMIT_CPUID_MAXVAL, MODULE_MSR } from '../platform-msrs.ts';
import { readShared, sharedBuffer } from '../shared-buffer.ts';
import { ATTRIBUTES, hasAny } from '../td/features.ts';
import { type Held, locking } from '../td/held.ts';
import { MRTD_CONTEXT_VERSION, TDCS } from '../td/layout.ts';
import { TdMeasurement } from '../td/measurement.ts';
import { openMsrs } from '../td/msr-bitmaps.ts';
import { enterOpState, lockPageAt, plainHpa } from '../td/operands.ts';
import { configureCpuid } from '../td/td-cpuid.ts';
import { configureTd, TdParams } from '../td/td-params.ts';
import { TrustDomain } from '../td/trust-domain.ts';
import { setVirtualArchCapabilities, setVirtualVmxMsrs } from '../td/virtual-msrs.ts';
import type { TdxModule } from '../tdx-module.ts';

const RTMRS = 4;
/** Time for which a TD waits for a lock that the host claims (module facts 9), in microseconds. */
const HP_LOCK_TIMEOUT_US = 1_000_000;
const US_PER_SECOND = 1_000_000;

/** RCX bit 0: R8 describes a list of event filters. */
const WITH_EVENT_FILTERS = 1;
const MAX_EVENT_FILTERS = 512;
const FILTER_COUNT_MASK = 0xfffn;
const FILTER_RESERVED = ~((1n << 52n) - 1n);

/** @internal */
export const mngInit: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const low = regs.d[2 * RCX]!;
  const high = regs.d[2 * RCX + 1]!;
  regs.q[RCX] = 0n;
  if (hasAny(lp.rdmsr(MODULE_MSR.MISC_ENABLE), LIMIT_CPUID_MAXVAL)) return STATUS.TDX_LIMIT_CPUID_MAXVAL_SET;
  const address = plainHpa(module.platform!, (low & ~WITH_EVENT_FILTERS) >>> 0, high);
  if (address === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RCX);
  const page = lockPageAt(module, held, address, RCX, 'exclusive', PAGE_TYPE.TDR);
  if (typeof page === 'bigint') return page;
  const td = new TrustDomain(module, page.address);
  const entered = enterOpState(held, td, TDH.mngInit);
  if (entered !== STATUS.TDX_SUCCESS) return entered;
  const buffer = sharedBuffer(module.platform!, regs.q[RDX]!, TD_PARAMS_BYTES);
  if (buffer === undefined) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  const params = new TdParams(readShared(lp, buffer, TD_PARAMS_BYTES));
  const filters = (low & WITH_EVENT_FILTERS) !== 0 ? regs.q[R8]! : undefined;
  return initialise(module, lp, td, params, filters);
}

function initialise(
  module: TdxModule,
  lp: LogicalProcessor,
  td: TrustDomain,
  params: TdParams,
  filters: bigint | undefined,
): bigint {
  const platform = module.platform!;
  const { tdcs } = td;
  tdcs.setU32(TDCS.NUM_VCPUS, 0);
  tdcs.setU32(TDCS.NUM_ASSOC_VCPUS, 0);
  tdcs.setU64(TDCS.TD_EPOCH, 1n);
  tdcs.setU32(TDCS.REFCOUNT, 0);
  tdcs.setN64(TDCS.HP_LOCK_TIMEOUT, Math.floor((HP_LOCK_TIMEOUT_US * platform.tscHz) / US_PER_SECOND));
  const configured = configureTd(module, lp, td, params);
  if (configured !== STATUS.TDX_SUCCESS) return configured;
  const filtered = setEventFilters(module, lp, td, filters);
  if (filtered !== STATUS.TDX_SUCCESS) return filtered;
  const identified = configureCpuid(module, lp, td, params);
  if (identified !== STATUS.TDX_SUCCESS) return identified;
  if (!platform.earlyStepping && !setVirtualArchCapabilities(platform, td, params)) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.IA32_ARCH_CAPABILITIES_CONFIG);
  }

  openMsrs(platform, tdcs);
  setVirtualVmxMsrs(platform, td);
  module.measurements.set(td.address, new TdMeasurement(module.machine.memory));
  module.tdBuildCount++;
  tdcs.setU16(TDCS.MRTD_CONTEXT_VERSION, MRTD_CONTEXT_VERSION);
  tdcs.setBytes(TDCS.RTMR, new Uint8Array(RTMRS * MEASUREMENT_BYTES));
  tdcs.setU32(TDCS.OP_STATE, OP_STATE.INITIALIZED);
  return STATUS.TDX_SUCCESS;
}

/** Takes the list of events that a profiled TD may count: ascending, without anything but selector and unit mask. */
function setEventFilters(
  module: TdxModule,
  lp: LogicalProcessor,
  { tdcs }: TrustDomain,
  filters: bigint | undefined,
): bigint {
  if (filters === undefined || !hasAny(tdcs.u64(TDCS.ATTRIBUTES), ATTRIBUTES.PERFMON))
    return STATUS.TDX_SUCCESS;
  const count = Number(filters & FILTER_COUNT_MASK);
  const buffer = sharedBuffer(module.platform!, filters & ~FILTER_COUNT_MASK, PAGE_4K);
  const isCountValid = count > 0 && count <= MAX_EVENT_FILTERS;
  if (hasAny(filters, FILTER_RESERVED) || !isCountValid || buffer === undefined) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R8);
  }
  tdcs.setU16(TDCS.EVENT_FILTERS_NUM, count);
  const list = new DataView(readShared(lp, buffer, 8 * count).buffer);
  let previous = -1;
  for (let i = 0; i < count; i++) {
    const selector = list.getUint32(8 * i, true);
    const unitMask = list.getUint16(8 * i + 4, true);
    const unitMaskMask = list.getUint16(8 * i + 6, true);
    if (selector > 0xff || unitMask > 0xff || unitMaskMask !== 0xffff) {
      return withOperand(STATUS.TDX_EVENT_FILTER_INVALID, i);
    }
    const event = selector | (unitMask << 8);
    if (event <= previous) return withOperand(STATUS.TDX_EVENT_FILTER_ORDER_INVALID, i);
    tdcs.setU16(TDCS.EVENT_FILTERS + 2 * i, event);
    previous = event;
  }
  return STATUS.TDX_SUCCESS;
}
