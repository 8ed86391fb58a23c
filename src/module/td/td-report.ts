/** TDREPORT: what the module and the processor state about a TD and the software under it (module facts 8). */
import { decodeSeamSigstruct } from '../../abi/seam-sigstruct.ts';
import type { SeamReports } from '../../machine/seam-reports.ts';
import { moduleImage } from '../module-image.ts';
import type { ModuleRelease } from '../releases.ts';
import type { TdInfo } from './td-info.ts';

/** Bytes of a TDREPORT and of the data that its maker puts into it. @public */
export const TD_REPORT_BYTES = 1024;
/** @public */
export const REPORT_DATA_BYTES = 64;

const OFFSET = {
  TYPE: 0,
  VERSION: 2,
  TEE_INFO_HASH: 80,
  REPORT_DATA: 128,
  TD_INFO: 512,
} as const;
const TDX_REPORT = 0x81;
/** Version of the report type: 1 for a TD to which a service TD is bound. */
const VERSION = { PLAIN: 0, WITH_SERVICE_TDS: 1 } as const;

const TCB_INFO = { BYTES: 239, VALID: 0, TEE_TCB_SVN: 8, MRSEAM: 24 } as const;
/** Fields of TEE_TCB_INFO that are there: TEE_TCB_SVN, MRSEAM, MRSIGNERSEAM, ATTRIBUTES. */
const VALID_FIELDS = 0x3_01ffn;

/** What goes into a report beside the module itself. @public */
export interface ReportSubject {
  readonly info: TdInfo;
  /** 64 bytes of the TD's own. */
  readonly data: Uint8Array;
  readonly hasServiceTds: boolean;
}

/** A TDREPORT sealed by the machine. @public */
export function makeTdReport(
  release: ModuleRelease,
  reports: SeamReports,
  { info, data, hasServiceTds }: ReportSubject,
): Uint8Array {
  const report = new Uint8Array(TD_REPORT_BYTES);
  report[OFFSET.TYPE] = TDX_REPORT;
  report[OFFSET.VERSION] = hasServiceTds ? VERSION.WITH_SERVICE_TDS : VERSION.PLAIN;
  report.set(info.hash, OFFSET.TEE_INFO_HASH);
  report.set(data, OFFSET.REPORT_DATA);
  report.set(info.bytes, OFFSET.TD_INFO);
  reports.seal(report, teeTcbInfo(release));
  return report;
}

/** What the processor knows of the module in the SEAM range from its signature. */
function teeTcbInfo(release: ModuleRelease): Uint8Array {
  const signed = decodeSeamSigstruct(moduleImage(release).sigstruct);
  if (signed === undefined)
    throw new Error("the model's own module image has a malformed signature structure");
  const bytes = new Uint8Array(TCB_INFO.BYTES);
  new DataView(bytes.buffer).setBigUint64(TCB_INFO.VALID, VALID_FIELDS, true);
  bytes[TCB_INFO.TEE_TCB_SVN] = signed.seamSvn;
  bytes[TCB_INFO.TEE_TCB_SVN + 1] = release.major;
  bytes.set(signed.seamHash, TCB_INFO.MRSEAM);
  return bytes;
}
