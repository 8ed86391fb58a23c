/** Reads a kernel log line by line, however it was saved; the last of several boots wins. */
import { addNote, type Evidence, newEvidence, type Place, showsMemory } from './evidence.ts';
import { LOG_RULES } from './log-rules.ts';

/** Lines that only the start of a boot has: the kernel's banner, and marks journalctl puts between boots. */
const BOOT_BANNER = /\bLinux version \d|^-- (?:Boot |Reboot)/;

/** A TDX line with the time it was printed at: the same again is a second copy, as in a log with its own excerpt. */
const TIMED_TDX_LINE = /^\[ *(?!0\.0+\])\d+\.\d+\].*tdx: /;

const MAX_TIMED_LINES = 10_000;

/** One quick test that most lines of a log fail. */
const WORDS = [...new Set(LOG_RULES.map((rule) => rule.word)), 'Linux version', '-- Boot', '-- Reboot'];
const WORTH_A_LOOK = new RegExp(WORDS.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|'));

/** @internal */
export class LogReader {
  readonly #source: string;
  #boot: Evidence;
  /** True once the boot that is being read told anything. */
  #begun = false;
  #boots = 1;
  /** The latest earlier boot that showed memory. */
  #earlier: Evidence | undefined;
  #startLine = 1;
  #timedLines = new Set<string>();

  constructor(source: string) {
    this.#source = source;
    this.#boot = newEvidence(source);
  }

  /** Takes what the line tells. Throws InputError for figures no machine can have. */
  read(text: string, line: number): void {
    if (!WORTH_A_LOOK.test(text) || text.startsWith('#')) return;
    if (BOOT_BANNER.test(text)) {
      if (this.#begun) this.#nextBoot(line);
      return;
    }
    const place: Place = { source: this.#source, line };
    for (const rule of LOG_RULES) {
      if (!text.includes(rule.word)) continue;
      const match = rule.pattern.exec(text);
      if (match === null) continue;
      if (this.#isSecondCopy(text)) return;
      if (this.#printedOncePerBoot(rule.word, match)) this.#nextBoot(line);
      this.#begun = true;
      rule.take(this.#boot, match, place);
      return;
    }
  }

  /** The evidence of the last boot that shows memory. */
  finish(): Evidence {
    const last = this.#boot;
    const chosen = this.#earlier !== undefined && !showsMemory(last) ? this.#earlier : last;
    if (this.#boots > 1) {
      const place = { source: this.#source };
      const text =
        chosen === last
          ? `${this.#boots} boots in one log: the last, from line ${this.#startLine}, is used`
          : `${this.#boots} boots in one log: the last shows no memory, so the latest that does is used`;
      addNote(chosen, place, text);
    }
    return chosen;
  }

  /** Excerpts have no banner: a second KeyID line or the first map entry again starts another boot too. */
  #printedOncePerBoot(word: string, match: RegExpExecArray): boolean {
    if (word === 'KeyID range') return this.#boot.keyIds !== undefined;
    const first = this.#boot.maps.firmware[0];
    if (first === undefined || match[1] !== 'BIOS-e820') return false;
    return Number.parseInt(match[2]!, 16) === first.start && Number.parseInt(match[3]!, 16) + 1 === first.end;
  }

  #isSecondCopy(text: string): boolean {
    if (!text.includes('tdx: ') || !TIMED_TDX_LINE.test(text)) return false;
    const { size } = this.#timedLines;
    return size < MAX_TIMED_LINES && this.#timedLines.add(text).size === size;
  }

  #nextBoot(line: number): void {
    if (showsMemory(this.#boot)) this.#earlier = this.#boot;
    this.#boot = newEvidence(this.#source);
    this.#begun = false;
    this.#timedLines = new Set();
    this.#boots++;
    this.#startLine = line;
  }
}
