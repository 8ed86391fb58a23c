/**
 * The processor's part of local attestation (SEAMOPS leaves SEAMREPORT and SEAMVERIFYREPORT): it states what runs in the
 * SEAM range and signs the first 256 bytes of a TDREPORT, the REPORTMACSTRUCT, with a key that never leaves the machine.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';

/** What verification says of a REPORTMACSTRUCT. @public */
export type ReportVerdict = 'accepted' | 'invalid-cpusvn' | 'invalid-report';

/** Bytes of a REPORTMACSTRUCT. @public */
export const REPORT_MAC_STRUCT_BYTES = 256;
/** Security version of the processor and its microcode: the lowest there is. */
const CPUSVN = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
const CPUSVN_OFFSET = 16;
const TEE_TCB_INFO = { offset: 256, hashOffset: 32 } as const;
const MAC = { offset: 224, length: 32 } as const;

/** @public */
export class SeamReports {
  /** Fault point: what every verification says, or null for the truth. */
  verdict: ReportVerdict | null = null;
  /** Fault point: the processor leaves its fields of a report empty. */
  silent = false;
  #key: Uint8Array;

  /** The key follows from the machine's `seed`, without a draw from its entropy. */
  constructor(seed: bigint) {
    this.#key = createHash('sha256').update(`report key ${seed}`).digest();
  }

  /** State for a saved machine. */
  save() {
    return { key: this.#key };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<SeamReports['save']>): void {
    this.#key = saved.key;
  }

  /** Fills in TEE_TCB_INFO and its hash, CPUSVN and MAC of a TDREPORT. */
  seal(report: Uint8Array, teeTcbInfo: Uint8Array): void {
    if (this.silent) return;
    report.set(teeTcbInfo, TEE_TCB_INFO.offset);
    report.set(createHash('sha384').update(teeTcbInfo).digest(), TEE_TCB_INFO.hashOffset);
    report.set(CPUSVN, CPUSVN_OFFSET);
    report.set(this.#mac(report), MAC.offset);
  }

  /** Checks a REPORTMACSTRUCT. */
  verify(report: Uint8Array): ReportVerdict {
    if (this.verdict !== null) return this.verdict;
    const cpuSvn = report.subarray(CPUSVN_OFFSET, CPUSVN_OFFSET + CPUSVN.length);
    if (!timingSafeEqual(cpuSvn, CPUSVN)) return 'invalid-cpusvn';
    const mac = report.subarray(MAC.offset, MAC.offset + MAC.length);
    return timingSafeEqual(mac, this.#mac(report)) ? 'accepted' : 'invalid-report';
  }

  #mac(report: Uint8Array): Uint8Array {
    return createHmac('sha256', this.#key).update(report.subarray(0, MAC.offset)).digest();
  }
}
