/** Reads text of any kind, chunk by chunk: a log, /proc/iomem and a SRAT may even be in one file. */
import { addNote, type Evidence, newEvidence, type Place } from './evidence.ts';
import { readIomemLine } from './iomem-reader.ts';
import { LogReader } from './log-reader.ts';
import { SratTextReader } from './srat-text.ts';

/** A longer line is cut here, so that a file without line ends does not fill memory. */
const MAX_LINE = 64 * 1024;

/** @internal */
export class TextReader {
  readonly #source: string;
  readonly #decoder = new TextDecoder();
  readonly #log: LogReader;
  readonly #srat = new SratTextReader();
  /** What is read outside of a log, and so belongs to no boot. */
  readonly #tables: Evidence;
  #line = 0;
  #rest = '';

  constructor(source: string) {
    this.#source = source;
    this.#log = new LogReader(source);
    this.#tables = newEvidence(source);
  }

  /** Takes the next bytes. Throws InputError for figures no machine can have. */
  push(bytes: Uint8Array): void {
    const text = this.#rest + this.#decoder.decode(bytes, { stream: true });
    let start = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', start)) {
      this.#read(text.slice(start, end));
      start = end + 1;
    }
    this.#rest = text.slice(start, start + MAX_LINE);
  }

  /** What all the text told: of the log its last boot, and the tables. */
  finish(): Evidence {
    this.#rest += this.#decoder.decode();
    if (this.#rest !== '') this.#read(this.#rest);
    this.#srat.finish(this.#tables);
    const { notes, resources, srat, processors } = this.#tables;
    const log = this.#log.finish();
    return {
      ...log,
      resources,
      notes: [...log.notes, ...notes],
      srat: log.srat.length > 0 ? log.srat : srat,
      processors: log.processors.length > 0 ? log.processors : processors,
    };
  }

  #read(line: string): void {
    this.#line++;
    const place: Place = { source: this.#source, line: this.#line };
    const text = line.length > MAX_LINE ? line.slice(0, MAX_LINE) : line;
    if (text !== line) addNote(this.#tables, place, 'this line is over 64 KiB: its end is left out');
    if (this.#srat.read(text, place)) return;
    if (readIomemLine(this.#tables, text, place)) return;
    this.#log.read(text, this.#line);
  }
}
