/** Service TDs: the table in the TDCS of the TD they serve, and the handle by which they name it (module facts 8, 14). */
import { MEASUREMENT_BYTES } from '../../abi/measurement.ts';
import { OPERAND } from '../../abi/operands.ts';
import { R8, R9, R10, type Registers } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LockMode } from '../locks.ts';
import type { ControlStructure } from './control-structure.ts';
import { type Held, lockField } from './held.ts';
import { SERVTD_BINDING, TDCS, TDR } from './layout.ts';
import { sha384 } from './measurement.ts';

/** A TD is served by one migration TD at most. @public */
export const MAX_SERVICE_TDS = 1;
/** The only type of service TD: one that migrates the TD it serves. */
const TYPE_MIGRATION = 0n;
/** Attributes that may be set: the service TD is meant as this instance, and parts of TDINFO that do not matter. */
const ATTRIBUTES_FIXED0 = 0x7ff_0000_0001n;
const IGNORED_PARTS_SHIFT = 32n;
/** Size of a slot. */
const SERVTD_BINDING_BYTES = 128;
/** States of a slot. @public */
export const BINDING_STATE = { NOT_BOUND: 0, PRE_BOUND: 1, BOUND: 2 } as const;
/** Qwords of a TD's UUID. @public */
export const UUID_QWORDS = 4;

/** Parts of a binding handle, which is their sum with the first qword of the service TD's UUID. */
const HANDLE_SLOT = 0xfffn;
const HANDLE_TDR = 0xf_ffff_ffff_f000n;

/** What a host asks for with SERVTD.BIND and PREBIND. @public */
export interface BindingRequest {
  readonly slot: number;
  readonly type: number;
  readonly attributes: bigint;
}

/** The request in R8 (slot), R9 (type) and R10 (attributes), or the status. @public */
export function bindingRequest({ q }: Registers): BindingRequest | bigint {
  const [slot, type, attributes] = [q[R8]!, q[R9]!, q[R10]!];
  if (slot >= MAX_SERVICE_TDS) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R8);
  if (type !== TYPE_MIGRATION) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R9);
  if ((attributes & ~ATTRIBUTES_FIXED0) !== 0n) return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.R10);
  return { slot: Number(slot), type: Number(type), attributes };
}

/** Bits of the parts of TDINFO that a binding with `attributes` does not look at. @public */
export function ignoredParts(attributes: bigint): number {
  return Number((attributes >> IGNORED_PARTS_SHIFT) & 0xffffn);
}

/** Locks the table until the leaf ends; TDX_SUCCESS or the status. @public */
export function lockBindings(held: Held, tdcs: ControlStructure, mode: LockMode, guest: boolean): bigint {
  const status = lockField(held, tdcs, TDCS.SERVTD_BINDINGS_LOCK, mode, guest);
  return status === STATUS.TDX_SUCCESS ? status : withOperand(status, OPERAND.SERVTD_BINDINGS);
}

/** One slot of the table in the TDCS of the TD that is served. @public */
export class ServiceTdBinding {
  readonly #tdcs: ControlStructure;
  readonly #at: number;

  constructor(tdcs: ControlStructure, slot: number) {
    this.#tdcs = tdcs;
    this.#at = TDCS.SERVTD_BINDINGS_TABLE + SERVTD_BINDING_BYTES * slot;
  }

  /** One of BINDING_STATE. */
  get state(): number {
    return this.#tdcs.u8(this.#at + SERVTD_BINDING.STATE);
  }

  get attributes(): bigint {
    return this.#tdcs.u64(this.#at + SERVTD_BINDING.ATTRIBUTES);
  }

  /** Which service TD is meant, without its UUID: what SERVTD_HASH is made of. */
  get identity(): readonly Uint8Array[] {
    return [
      this.#tdcs.bytes(this.#at + SERVTD_BINDING.INFO_HASH, MEASUREMENT_BYTES),
      this.#tdcs.bytes(this.#at + SERVTD_BINDING.TYPE, 2),
      this.#tdcs.bytes(this.#at + SERVTD_BINDING.ATTRIBUTES, 8),
    ];
  }

  /** Takes an empty or announced slot for a service TD whose TDINFO hashes to `infoHash`. */
  describe({ type, attributes }: BindingRequest, infoHash: Uint8Array): void {
    const tdcs = this.#tdcs;
    if (this.state === BINDING_STATE.NOT_BOUND) tdcs.setU16(TDCS.SERVTD_NUM, tdcs.u16(TDCS.SERVTD_NUM) + 1);
    tdcs.setU16(this.#at + SERVTD_BINDING.TYPE, type);
    tdcs.setU64(this.#at + SERVTD_BINDING.ATTRIBUTES, attributes);
    tdcs.setBytes(this.#at + SERVTD_BINDING.INFO_HASH, infoHash);
    this.#setState(BINDING_STATE.PRE_BOUND);
  }

  /** TDX_SUCCESS when the slot was described with just this, else the status that says what differs. */
  compare({ type, attributes }: BindingRequest, infoHash: Uint8Array): bigint {
    if (this.#tdcs.u16(this.#at + SERVTD_BINDING.TYPE) !== type) return STATUS.TDX_SERVTD_TYPE_MISMATCH;
    if (this.attributes !== attributes) return STATUS.TDX_SERVTD_ATTR_MISMATCH;
    return this.hasInfoHash(infoHash) ? STATUS.TDX_SUCCESS : STATUS.TDX_SERVTD_INFO_HASH_MISMATCH;
  }

  hasInfoHash(infoHash: Uint8Array): boolean {
    const expected = this.#tdcs.bytes(this.#at + SERVTD_BINDING.INFO_HASH, MEASUREMENT_BYTES);
    return expected.every((byte, i) => byte === infoHash[i]);
  }

  /** Binds the service TD with UUID `uuid`. */
  bind(uuid: readonly bigint[]): void {
    uuid.forEach((qword, i) => {
      this.#tdcs.setU64(this.#at + SERVTD_BINDING.UUID + 8 * i, qword);
    });
    this.#setState(BINDING_STATE.BOUND);
  }

  isBoundTo(uuid: readonly bigint[]): boolean {
    return uuid.every((qword, i) => this.#tdcs.u64(this.#at + SERVTD_BINDING.UUID + 8 * i) === qword);
  }

  #setState(state: number): void {
    this.#tdcs.setU8(this.#at + SERVTD_BINDING.STATE, state);
  }
}

/** SERVTD_HASH of a TD: over all slots in use, zero when there is none. @public */
export function serviceTdHash(tdcs: ControlStructure): Uint8Array {
  // With a single slot there is nothing to sort.
  const binding = new ServiceTdBinding(tdcs, 0);
  return binding.state === BINDING_STATE.NOT_BOUND
    ? new Uint8Array(MEASUREMENT_BYTES)
    : sha384(...binding.identity);
}

/** A TD's UUID. @public */
export function uuidOf(tdr: ControlStructure): readonly bigint[] {
  return Array.from({ length: UUID_QWORDS }, (_, i) => tdr.u64(TDR.TD_UUID + 8 * i));
}

/** The handle by which the service TD with UUID `uuid` names slot `slot` of the TD whose TDR is at `tdr`. @public */
export function bindingHandle(tdr: number, slot: number, uuid: readonly bigint[]): bigint {
  return BigInt.asUintN(64, BigInt(tdr + slot) + uuid[0]!);
}

/** Takes a handle apart that the service TD with UUID `uuid` gives; it may be anything. @public */
export function readBindingHandle(
  handle: bigint,
  uuid: readonly bigint[],
): { readonly tdr: bigint; readonly slot: number } {
  const plain = BigInt.asUintN(64, handle - uuid[0]!);
  return { tdr: plain & HANDLE_TDR, slot: Number(plain & HANDLE_SLOT) };
}
