/** Every element of a release's global metadata in iteration order, found by the two halves of its id. */
import { fieldIdParts, type GlobalField, globalFieldsOf } from '../abi/global-fields.ts';

/** One element. @internal */
export interface GlobalElement {
  readonly field: GlobalField;
  /** Number of the field in a run of fields, and of the element in the field. */
  readonly index: number;
  readonly element: number;
  /** Id as the module reports it. */
  readonly id: bigint;
  readonly idLow: number;
  readonly idHigh: number;
}

/** Bits of an element's id that must be zero, beside 31:24: 37:34, 46:38, 49:47, 55, 62. Context, size and others are ignored. */
const RESERVED_HIGH = 0x4083_fffc;
/** Bits 54:52, which any context may fill in an id that is otherwise all ones. */
const CONTEXT_HIGH = 0x0070_0000;
const ALL_ONES = 0xffff_ffff;
const CLASS_MASK = 0x3f00_0000;
const CODE_MASK = 0x00ff_ffff;

/** True for the id that asks for the first element. @internal */
export function isNoField(low: number, high: number): boolean {
  return low === ALL_ONES && (high | CONTEXT_HIGH) === -1;
}

/** @internal */
export class GlobalLayout {
  readonly elements: readonly GlobalElement[];
  /** Position in `elements` by class (bits 29:24) and field code (bits 23:0). */
  readonly #positions = new Map<number, number>();
  static readonly #cache = new Map<string, GlobalLayout>();

  private constructor(version: string) {
    this.elements = globalFieldsOf(version).flatMap(elementsOf);
    for (const [position, { idLow, idHigh }] of this.elements.entries()) {
      this.#positions.set((idHigh & CLASS_MASK) | idLow, position);
    }
  }

  /** The layout of a release. */
  static of(version: string): GlobalLayout {
    const cached = GlobalLayout.#cache.get(version) ?? new GlobalLayout(version);
    GlobalLayout.#cache.set(version, cached);
    return cached;
  }

  /** Position of the element with this id, or -1 when the id is malformed or names none. */
  find(low: number, high: number): number {
    return (low & ~CODE_MASK) !== 0 || (high & RESERVED_HIGH) !== 0 ? -1 : this.locate(low, high);
  }

  /** The same for an id whose other bits do not matter, as where a list shall start. */
  locate(low: number, high: number): number {
    return this.#positions.get((high & CLASS_MASK) | (low & CODE_MASK)) ?? -1;
  }

  /** Position of the first element at or after `position` that the reader may see; -1 after the last. */
  visibleFrom(position: number, guest: boolean): number {
    for (let at = position; at < this.elements.length; at++) {
      if (!guest || this.elements[at]!.field.guest) return at;
    }
    return -1;
  }
}

function elementsOf(field: GlobalField): GlobalElement[] {
  return Array.from({ length: field.fields * field.elements }, (_, code) => {
    const id = field.id + BigInt(code);
    return {
      field,
      index: Math.floor(code / field.elements),
      element: code % field.elements,
      id,
      idLow: Number(BigInt.asUintN(32, id)),
      idHigh: Number(id >> 32n),
    };
  });
}

/** True when `next` continues the list sequence that `last` ends. @internal */
export function continuesSequence(last: GlobalElement, next: GlobalElement): boolean {
  const a = fieldIdParts(last.id);
  const b = fieldIdParts(next.id);
  return (
    a.classCode === b.classCode &&
    a.fieldCode + 1 === b.fieldCode &&
    last.field.elements === next.field.elements &&
    a.elementBytes === b.elementBytes
  );
}
