/** Reads a SRAT in text: the hexadecimal dump of `acpidump`, or what `iasl -d` makes of the table. */
import type { Evidence, Place } from './evidence.ts';
import { type AffinityStructure, takeAffinity } from './srat-structures.ts';
import { readSratTable } from './srat-table.ts';

const DUMP_TABLE = /^([A-Z0-9!]{4}) @ 0x[0-9a-fA-F]+/;
const DUMP_LINE = /^ +[0-9A-Fa-f]{4,8}: ((?:[0-9A-Fa-f]{2}(?: |$)){1,16})/;
/** `[034h 0052   1]   Subtable Type : 01 [Memory Affinity]`; newer disassemblers add an `h` to the length. */
const FIELD = /^\[[0-9A-F]{3,8}h \d{4,} +[0-9A-F]+h?\] +(\S.*?) : "?([0-9A-Fa-f]+|[A-Z0-9]{4})\b/;

/** More bytes than any SRAT has. */
const MAX_DUMP_BYTES = 1 << 24;

/** @internal */
export class SratTextReader {
  readonly #bytes: number[] = [];
  #dumping = false;
  #dumpPlace: Place | undefined;
  readonly #structures: AffinityStructure[] = [];
  #disassembling = false;
  #fields = new Map<string, string>();
  #fieldsPlace: Place | undefined;

  /** Takes the line when it is part of a table in text; false when it is none. */
  read(text: string, place: Place): boolean {
    return this.#readDump(text, place) || this.#readField(text, place);
  }

  /** Adds what the tables said. Throws InputError for a dump with a wrong length or checksum. */
  finish(evidence: Evidence): void {
    this.#endStructure();
    if (this.#dumpPlace !== undefined) {
      this.#structures.push(...readSratTable(Uint8Array.from(this.#bytes), this.#dumpPlace));
    }
    takeAffinity(evidence, this.#structures);
  }

  #readDump(text: string, place: Place): boolean {
    const table = text.includes(' @ 0x') ? DUMP_TABLE.exec(text) : null;
    if (table !== null) {
      this.#dumping = table[1] === 'SRAT' && this.#dumpPlace === undefined;
      if (this.#dumping) this.#dumpPlace = place;
      return true;
    }
    if (!this.#dumping) return false;
    const line = DUMP_LINE.exec(text);
    if (line === null) {
      this.#dumping = false;
      return false;
    }
    if (this.#bytes.length < MAX_DUMP_BYTES) {
      for (const byte of line[1]!.trim().split(' ')) this.#bytes.push(Number.parseInt(byte, 16));
    }
    return true;
  }

  #readField(text: string, place: Place): boolean {
    if (!text.startsWith('[') || !text.includes(' : ')) return false;
    const field = FIELD.exec(text);
    if (field === null) return false;
    const [, name, value] = field as unknown as [string, string, string];
    if (name === 'Signature') this.#disassembling = value === 'SRAT';
    if (!this.#disassembling) return true;
    if (name === 'Subtable Type') {
      this.#endStructure();
      this.#fieldsPlace = place;
    }
    this.#fields.set(name, value);
    return true;
  }

  #endStructure(): void {
    const fields = this.#fields;
    const place = this.#fieldsPlace;
    this.#fields = new Map();
    if (place === undefined) return;
    const number = (name: string): number => Number.parseInt(fields.get(name) ?? '0', 16);
    const flags = number('Flags (decoded below)');
    const proximityDomain = number('Proximity Domain');
    const type = number('Subtable Type');
    if (type === 0) {
      const domain = number('Proximity Domain Low(8)') + number('Proximity Domain High(24)') * 2 ** 8;
      this.#structures.push({ type: 'apic', proximityDomain: domain, apicId: number('Apic ID'), flags });
    } else if (type === 1) {
      const [base, length] = [number('Base Address'), number('Address Length')];
      this.#structures.push({ type: 'memory', proximityDomain, base, length, flags, place });
    } else if (type === 2) {
      this.#structures.push({ type: 'x2apic', proximityDomain, apicId: number('Apic ID'), flags });
    }
  }
}
