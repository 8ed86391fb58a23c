/**
 * The parts of an SNP guest's kernel that scripts need: instructions of their own, the GHCB, page state changes; and a
 * #VC handler under which an ordinary script runs as on any other processor.
 */
import { PAGE_4K } from '../../abi/address.ts';
import {
  encodePscEntry,
  GHCB,
  GHCB_EXIT,
  GHCB_MSR,
  type GhcbField,
  ghcbBitmap,
  PSC_HEADER,
  PSC_OPERATION,
} from '../../abi/ghcb.ts';
import { RAX, RCX, RDX } from '../../abi/registers.ts';
import type { ValuesOf } from '../../abi/struct.ts';
import type { GuestCpu, GuestFlow } from './flow.ts';

/** What came of PVALIDATE. @public */
export interface Validation {
  /** RMP_STATUS. */
  readonly status: number;
  /** The carry flag: the page was as asked for already. */
  readonly unchanged: boolean;
}

const INSTRUCTION_BYTES = 4;
const LOW_32 = 0xffff_ffffn;
/** Entries of one list of page state changes that these verbs make. */
const LIST_ENTRIES = 128;

/** The verbs, for a guest whose C-bit is bit `cBit` and whose GHCB is the page at `ghcb`. @public */
export class SnpVerbs {
  readonly cpu: GuestCpu;
  readonly #cBit: number;
  readonly #ghcb: number;

  constructor(cpu: GuestCpu, options: { readonly cBit: number; readonly ghcb: number }) {
    this.cpu = cpu;
    this.#cBit = options.cBit;
    this.#ghcb = options.ghcb;
  }

  /** The address as a private one. */
  private(gpa: number): number {
    return gpa + 2 ** this.#cBit;
  }

  /** PVALIDATE of the page at `gpa`; `size` 0 is 4 KiB, 1 is 2 MiB. */
  *pvalidate(gpa: number, validate = true, size: 0 | 1 = 0): GuestFlow<Validation> {
    const registers = { rax: BigInt(this.private(gpa)), rcx: BigInt(size), rdx: validate ? 1n : 0n };
    const out = yield* this.cpu.technology('pvalidate', INSTRUCTION_BYTES, registers);
    return { status: Number(out[RAX]), unchanged: out[RCX] === 1n };
  }

  /** RMPADJUST of the page at `gpa` for a less privileged VMPL. Returns RMP_STATUS. */
  *rmpadjust(gpa: number, vmpl: number, permissions: number, vmsa = false): GuestFlow<number> {
    const rdx = BigInt(vmpl) | (BigInt(permissions) << 8n) | (vmsa ? 1n << 16n : 0n);
    const registers = { rax: BigInt(this.private(gpa)), rcx: 0n, rdx };
    const out = yield* this.cpu.technology('rmpadjust', INSTRUCTION_BYTES, registers);
    return Number(out[RAX]);
  }

  /** VMGEXIT with a request in the GHCB MSR. Returns the MSR afterwards. */
  *msrRequest(request: bigint): GuestFlow<bigint> {
    yield* this.#setMsr(request);
    yield* this.cpu.technology('vmgexit', INSTRUCTION_BYTES);
    const out = yield* this.cpu.technology('rdmsr-ghcb', INSTRUCTION_BYTES);
    return (out[RDX]! << 32n) | (out[RAX]! & LOW_32);
  }

  /** Page state change by the MSR: true when the host agreed. */
  *changePageState(gpa: number, isPrivate: boolean): GuestFlow<boolean> {
    const operation = isPrivate ? PSC_OPERATION.PRIVATE : PSC_OPERATION.SHARED;
    const request = (BigInt(operation) << 52n) | BigInt(gpa) | BigInt(GHCB_MSR.PSC_REQ);
    return (yield* this.msrRequest(request)) === BigInt(GHCB_MSR.PSC_RESP);
  }

  /** Makes the GHCB's page shared and registers it. */
  *registerGhcb(): GuestFlow {
    yield* this.changePageState(this.#ghcb, false);
    yield* this.msrRequest(BigInt(this.#ghcb) | BigInt(GHCB_MSR.REG_GPA_REQ));
  }

  /** Asks the host to end the guest, with a reason. */
  *terminate(reasonSet = 0, reason = 0): GuestFlow {
    const request = (BigInt(reason) << 16n) | (BigInt(reasonSet) << 12n) | BigInt(GHCB_MSR.TERM_REQ);
    yield* this.msrRequest(request);
  }

  /** VMGEXIT with the GHCB: `fields` and what lies in the shared buffer. Returns the GHCB afterwards. */
  *vmgexit(
    exitCode: number,
    fields: Partial<Record<GhcbField, bigint>> = {},
    buffer: Uint8Array = new Uint8Array(),
  ): GuestFlow<ValuesOf<typeof GHCB>> {
    const values = {
      sw_exit_code: BigInt(exitCode),
      sw_exit_info_1: 0n,
      sw_exit_info_2: 0n,
      sw_scratch: BigInt(this.#ghcb + GHCB.offsets.shared_buffer),
      ...fields,
    };
    const page = GHCB.encode({
      ...values,
      valid_bitmap: ghcbBitmap(Object.keys(values) as GhcbField[]),
      shared_buffer: buffer,
      protocol_version: 2,
    });
    yield* this.cpu.write(this.#ghcb, page);
    yield* this.#setMsr(BigInt(this.#ghcb));
    yield* this.cpu.technology('vmgexit', INSTRUCTION_BYTES);
    return GHCB.decode(yield* this.cpu.read(this.#ghcb, PAGE_4K));
  }

  /**
   * Makes pages private and validates them, or gives up validation and makes them shared; by lists, 4 KiB each. Returns 0,
   * or SW_EXITINFO2 of the request that failed.
   */
  *convert(gpa: number, pages: number, isPrivate: boolean): GuestFlow<bigint> {
    const operation = isPrivate ? PSC_OPERATION.PRIVATE : PSC_OPERATION.SHARED;
    for (let done = 0; done < pages; done += LIST_ENTRIES) {
      const at = gpa + done * PAGE_4K;
      const count = Math.min(LIST_ENTRIES, pages - done);
      if (!isPrivate) yield* this.#validate(at, count, false);
      const list = new Uint8Array(PSC_HEADER.bytes + count * 8);
      PSC_HEADER.patch(list, { end_entry: count - 1 });
      const view = new DataView(list.buffer);
      for (let i = 0; i < count; i++) {
        const entry = { currentPage: 0, gfn: at / PAGE_4K + i, operation, isLarge: false };
        view.setBigUint64(PSC_HEADER.bytes + i * 8, encodePscEntry(entry), true);
      }
      const { sw_exit_info_2: result } = yield* this.vmgexit(
        GHCB_EXIT.PSC,
        { sw_exit_info_2: BigInt(list.length) },
        list,
      );
      if (result !== 0n) return result;
      if (isPrivate) yield* this.#validate(at, count, true);
    }
    return 0n;
  }

  *#validate(gpa: number, pages: number, validate: boolean): GuestFlow {
    for (let i = 0; i < pages; i++) yield* this.pvalidate(gpa + i * PAGE_4K, validate);
  }

  *#setMsr(value: bigint): GuestFlow {
    const registers = { rax: value & LOW_32, rdx: value >> 32n };
    yield* this.cpu.technology('wrmsr-ghcb', INSTRUCTION_BYTES, registers);
  }
}
