/** Reading global metadata: one element with the id of the next, or a list of them. */
import { NO_FIELD } from '../abi/global-fields.ts';
import { R8, RDX, type Registers } from '../abi/registers.ts';
import { STATUS } from '../abi/status-codes.ts';
import { continuesSequence, type GlobalElement, GlobalLayout, isNoField } from './global-layout.ts';
import { GLOBAL_VALUES } from './global-values.ts';
import type { TdxModule } from './tdx-module.ts';

/** Bytes of a list's header and of a sequence's header. */
const HEADER = 8;
/** Bits of a field id that a sequence header takes from its first field: size, class, architecture, field code. */
const SEQUENCE_ID_MASK = 0xbf04_0003_00ff_ffffn;
const LAST_ELEMENT_SHIFT = 34n;
const LAST_FIELD_SHIFT = 38n;

/**
 * The part of SYS.RD after its own checks: the field id in RDX is answered with the value in R8 and the id of the next
 * element in RDX, which is all ones after the last one. `guest` readers see fewer fields.
 * @public
 */
export function readGlobalElement(module: TdxModule, regs: Registers, guest = false): bigint {
  const { d, q } = regs;
  const low = d[2 * RDX]!;
  const high = d[2 * RDX + 1]!;
  q[R8] = 0n;
  const layout = GlobalLayout.of(module.version);
  if (isNoField(low, high)) {
    setNext(regs, layout, layout.visibleFrom(0, guest));
    return STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT;
  }
  setNext(regs, layout, -1);
  const at = layout.find(low, high);
  if (at < 0) return STATUS.TDX_METADATA_FIELD_ID_INCORRECT;
  const element = layout.elements[at]!;
  if (guest && !element.field.guest) return STATUS.TDX_METADATA_FIELD_NOT_READABLE;
  q[R8] = elementValue(module, element);
  setNext(regs, layout, layout.visibleFrom(at + 1, guest));
  return STATUS.TDX_SUCCESS;
}

/** A list of fields as SYS.RDALL writes it. @public */
export interface GlobalList {
  readonly status: bigint;
  /** Id of the first field that did not fit; all ones when all did. */
  readonly next: bigint;
  /** List header, then sequences; empty when the id to start from was wrong. */
  readonly bytes: Uint8Array;
}

/** Every visible field from `start` (all ones: the first) on, as many as fit into `capacity` bytes. @public */
export function listGlobalFields(
  module: TdxModule,
  start: bigint,
  capacity: number,
  guest = false,
): GlobalList {
  const layout = GlobalLayout.of(module.version);
  const low = Number(BigInt.asUintN(32, start));
  const high = Number(start >> 32n);
  let at = isNoField(low, high) ? layout.visibleFrom(0, guest) : layout.locate(low, high);
  const first = layout.elements[at];
  if (
    first === undefined ||
    first.element !== 0 ||
    !sameSize(first, isNoField(low, high) ? first.id : start)
  ) {
    return { status: STATUS.TDX_METADATA_FIELD_ID_INCORRECT, next: NO_FIELD, bytes: new Uint8Array(0) };
  }
  at = layout.visibleFrom(at, guest);
  const list = new ListWriter(capacity);
  for (let last: GlobalElement | undefined; at >= 0; ) {
    const { field } = layout.elements[at]!;
    const opensSequence = last === undefined || !continuesSequence(last, layout.elements[at]!);
    if (!list.fits(field.elements, opensSequence)) break;
    if (opensSequence) list.openSequence(layout.elements[at]!);
    const elements = layout.elements.slice(at, at + field.elements);
    list.addField(elements.map((element) => elementValue(module, element)));
    last = elements.at(-1);
    at = layout.visibleFrom(at + field.elements, guest);
  }
  const status = at < 0 ? STATUS.TDX_SUCCESS : STATUS.TDX_METADATA_LIST_OVERFLOW;
  return { status, next: layout.elements[at]?.id ?? NO_FIELD, bytes: list.bytes() };
}

/** List header: bytes used in bits 15:0, sequences in bits 31:16. Sequence header: a field id with the last field's number. */
class ListWriter {
  readonly #view: DataView;
  readonly #capacity: number;
  #used = HEADER;
  #sequences = 0;
  /** The open sequence: where its header is, what it says of the first field, and how many fields it has. */
  #header = 0;
  #first = 0n;
  #fields = 0n;

  constructor(capacity: number) {
    this.#view = new DataView(new ArrayBuffer(capacity));
    this.#capacity = capacity;
  }

  fits(elements: number, opensSequence: boolean): boolean {
    return this.#used + HEADER * (elements + (opensSequence ? 1 : 0)) <= this.#capacity;
  }

  openSequence({ id, field }: GlobalElement): void {
    this.#header = this.#used;
    this.#first = (id & SEQUENCE_ID_MASK) | (BigInt(field.elements - 1) << LAST_ELEMENT_SHIFT);
    this.#fields = 0n;
    this.#sequences++;
    this.#used += HEADER;
  }

  addField(values: readonly bigint[]): void {
    this.#view.setBigUint64(this.#header, this.#first | (this.#fields++ << LAST_FIELD_SHIFT), true);
    for (const value of values) {
      this.#view.setBigUint64(this.#used, value, true);
      this.#used += HEADER;
    }
  }

  bytes(): Uint8Array {
    this.#view.setUint16(0, this.#used, true);
    this.#view.setUint16(2, this.#sequences, true);
    return new Uint8Array(this.#view.buffer, 0, this.#used);
  }
}

function elementValue(module: TdxModule, { field, index, element }: GlobalElement): bigint {
  return GLOBAL_VALUES[field.name]!(module, index, element);
}

/** True when bits 33:32 of `id` tell the size of the field's elements. */
function sameSize(element: GlobalElement, id: bigint): boolean {
  return ((element.id ^ id) & 0x3_0000_0000n) === 0n;
}

function setNext({ d }: Registers, layout: GlobalLayout, position: number): void {
  const next = layout.elements[position];
  d[2 * RDX] = next?.idLow ?? 0xffff_ffff;
  d[2 * RDX + 1] = next?.idHigh ?? 0xffff_ffff;
}
