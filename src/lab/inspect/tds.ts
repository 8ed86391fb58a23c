/** The TDs of a host as their control structures tell them. */
import { MEASUREMENT_BYTES } from '../../abi/measurement.ts';
import { OP_STATES, type OpStateName } from '../../abi/op-states.ts';
import { MachineCheck } from '../../machine/exceptions.ts';
import { ATTRIBUTES } from '../../module/td/features.ts';
import {
  LIFECYCLE,
  NO_LP,
  TDCS,
  TDCS_PAGE,
  TDCS_PAGES_MIN,
  TDR,
  TDVPS,
  VCPU_STATE,
} from '../../module/td/layout.ts';
import type { TdxModule } from '../../module/tdx-module.ts';
import { countPages, type PageCount, type UsedPage } from './pages.ts';
import { type SeptRun, septTree } from './sept-tree.ts';
import { StructureView } from './structure.ts';

/** @public */
export interface VcpuInspection {
  /** Address of the TDVPR. */
  readonly tdvpr: number;
  /** Null before VP.INIT, and when the TD's key is gone. */
  readonly index: number | null;
  readonly state: string | null;
  /** Logical processor it is associated with. */
  readonly lp: number | null;
  /** It is entered there at the moment. */
  readonly isEntered: boolean;
}

/** What a TD's TDCS tells: there from MNG.INIT until its key is freed. @public */
export interface TdConfiguration {
  readonly attributes: bigint;
  readonly attributeNames: readonly string[];
  readonly xfam: bigint;
  readonly maxVcpus: number;
  readonly l2Vms: number;
  /** Hexadecimal; null while the TD is being built. */
  readonly mrtd: string | null;
}

/** @public */
export interface TdInspection {
  readonly tdr: number;
  readonly keyId: number;
  readonly lifecycle: string;
  readonly isFatal: boolean;
  /** Null before the TDCS is complete and after the key is freed. */
  readonly opState: OpStateName | null;
  readonly configuration: TdConfiguration | null;
  readonly vcpus: readonly VcpuInspection[];
  readonly pages: readonly PageCount[];
  readonly bytes: number;
  /** Where it was asked for and there is one. */
  readonly sept?: readonly SeptRun[];
  /** Why structures of the TD cannot be read: somebody wrote over them. */
  readonly damage?: string;
}

type Readable = Pick<TdInspection, 'opState' | 'configuration' | 'vcpus' | 'sept'>;

const EPTP_LEVEL_SHIFT = 3n;
const EPTP_LEVEL_MASK = 0b111n;

/** The TD whose pages these are. @internal */
export function inspectTd(
  module: TdxModule,
  tdr: number,
  pages: readonly UsedPage[],
  withSept: boolean,
): TdInspection {
  const owned = countPages(pages);
  const base = { tdr, pages: owned, bytes: owned.reduce((sum, { bytes }) => sum + bytes, 0) };
  const nothing: Readable = { opState: null, configuration: null, vcpus: [] };
  let head: Pick<TdInspection, 'keyId' | 'lifecycle' | 'isFatal'> = {
    keyId: 0,
    lifecycle: 'unknown',
    isFatal: false,
  };
  try {
    const view = new StructureView(module.machine.memory, module.globalKeyId, [tdr]);
    head = {
      keyId: view.u16(TDR.HKID),
      lifecycle: nameOf(LIFECYCLE, view.u32(TDR.LIFECYCLE_STATE)),
      isFatal: view.u8(TDR.FATAL) !== 0,
    };
    const vcpus = pages.filter(({ type }) => type === 'TDVPR').map(({ address }) => address);
    return { ...base, ...head, ...readTd(module, view, vcpus, withSept) };
  } catch (error) {
    if (!(error instanceof MachineCheck)) throw error;
    return { ...base, ...head, ...nothing, damage: error.message };
  }
}

function readTd(
  module: TdxModule,
  tdr: StructureView,
  vcpus: readonly number[],
  withSept: boolean,
): Readable {
  const { memory } = module.machine;
  const keyId = tdr.u16(TDR.HKID);
  const count = tdr.u32(TDR.NUM_TDCX);
  const hasKey = tdr.u32(TDR.LIFECYCLE_STATE) !== LIFECYCLE.TEARDOWN;
  if (!hasKey || count < TDCS_PAGES_MIN) {
    return { opState: null, configuration: null, vcpus: vcpus.map(withoutKey) };
  }
  const keyIdStartBit = module.platform!.hkidStartBit;
  const pages = Array.from({ length: count }, (_, i) => tdr.address(TDR.TDCX_PA + 8 * i, keyIdStartBit));
  const tdcs = new StructureView(memory, keyId, pages);
  const opState = OP_STATES[tdcs.u32(TDCS.OP_STATE)] ?? null;
  const isInitialised = opState !== null && opState !== 'UNINITIALIZED';
  const level = Number((tdcs.u64(TDCS.EPTP) >> EPTP_LEVEL_SHIFT) & EPTP_LEVEL_MASK);
  const root = { memory, keyId, keyIdStartBit, address: pages[TDCS_PAGE.SEPT_ROOT]!, level };
  return {
    opState,
    configuration: isInitialised ? configurationOf(tdcs) : null,
    vcpus: vcpus.map((address) => inspectVcpu(module, keyId, address)),
    ...(withSept && isInitialised ? { sept: septTree(root) } : {}),
  };
}

function configurationOf(tdcs: StructureView): TdConfiguration {
  const attributes = tdcs.u64(TDCS.ATTRIBUTES);
  const isMeasuring = tdcs.u16(TDCS.MRTD_CONTEXT_VERSION) !== 0;
  return {
    attributes,
    attributeNames: Object.entries(ATTRIBUTES)
      .filter(([, mask]) => (attributes & mask) !== 0n)
      .map(([name]) => name),
    xfam: tdcs.u64(TDCS.XFAM),
    maxVcpus: tdcs.u32(TDCS.MAX_VCPUS),
    l2Vms: tdcs.u16(TDCS.NUM_L2_VMS),
    mrtd: isMeasuring ? null : Buffer.from(tdcs.bytes(TDCS.MRTD, MEASUREMENT_BYTES)).toString('hex'),
  };
}

function inspectVcpu(module: TdxModule, keyId: number, tdvpr: number): VcpuInspection {
  const tdvps = new StructureView(module.machine.memory, keyId, [tdvpr]);
  const state = tdvps.u8(TDVPS.VCPU_STATE);
  const apicId = tdvps.u32(TDVPS.ASSOC_LPID);
  const isInitialised = state !== VCPU_STATE.UNINITIALIZED;
  const lp = isInitialised && apicId !== NO_LP ? lpIndex(module, apicId) : null;
  return {
    tdvpr,
    index: isInitialised ? tdvps.u32(TDVPS.VCPU_INDEX) : null,
    state: nameOf(VCPU_STATE, state),
    lp,
    isEntered: module.running.some((vcpu) => vcpu?.address === tdvpr),
  };
}

function lpIndex(module: TdxModule, apicId: number): number | null {
  return module.machine.lps.find((lp) => lp.apicId === apicId)?.index ?? null;
}

function withoutKey(tdvpr: number): VcpuInspection {
  return { tdvpr, index: null, state: null, lp: null, isEntered: false };
}

function nameOf(names: Readonly<Record<string, number>>, value: number): string {
  return Object.keys(names).find((name) => names[name] === value) ?? `0x${value.toString(16)}`;
}
