/** YAML text with places: a value, and for every path in it the line and column where it stands. */
import { type Document, isAlias, isMap, isScalar, LineCounter, type Node, parseDocument, visit } from 'yaml';
import { InputError } from '../../../abi/input-error.ts';

/** Largest scenario read; a longer file is no scenario. */
const MOST_CHARACTERS = 1_000_000;

/** A key or an index on the way to a value. @internal */
export type PathStep = string | number;

/** @internal */
export class YamlText {
  readonly file: string;
  /** The document as plain data. */
  readonly value: unknown;
  readonly #document: Document.Parsed;
  readonly #lines = new LineCounter();

  /** Throws InputError with file, line and column for text that is not one YAML document. */
  constructor(file: string, text: string) {
    this.file = file;
    if (text.length > MOST_CHARACTERS)
      throw new InputError(`${file}:1:1: is longer than ${MOST_CHARACTERS} characters: no scenario`);
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false, stringKeys: true });
    const [problem] = [...this.#document.errors, ...this.#document.warnings];
    if (problem !== undefined)
      throw this.#error(problem.pos[0], `is not YAML: ${firstLine(problem.message)}`);
    this.#refuseAliases();
    this.value = this.#document.toJS();
  }

  /** An InputError that names file, line and column of what is at `path`, or of what would hold it, and `key`. */
  refusal(path: readonly PathStep[], text: string): InputError {
    const name = formatPath(path);
    return this.#error(this.#offsetOf(path), name === '' ? text : `${name}: ${text}`);
  }

  /** Line of what is at `path`, from 1. */
  lineOf(path: readonly PathStep[]): number {
    return this.#lines.linePos(this.#offsetOf(path)).line;
  }

  /** A scenario is read from top to bottom; a node that stands for another would have two places. */
  #refuseAliases(): void {
    visit(this.#document, {
      Alias: (_, node) => {
        throw this.#error(
          node.range?.[0] ?? 0,
          `the alias *${node.source} is not allowed here: write the value out`,
        );
      },
    });
  }

  #error(offset: number, text: string): InputError {
    const { line, col } = this.#lines.linePos(offset);
    // An empty file has no lines.
    return new InputError(`${this.file}:${Math.max(line, 1)}:${Math.max(col, 1)}: ${text}`);
  }

  #offsetOf(path: readonly PathStep[]): number {
    for (let length = path.length; length >= 0; length--) {
      const offset = this.#startOf(path.slice(0, length));
      if (offset !== undefined) return offset;
    }
    return 0;
  }

  /** Where a key or an item begins; undefined for a path that leads nowhere. */
  #startOf(path: readonly PathStep[]): number | undefined {
    const holder = this.#document.getIn(path.slice(0, -1), true);
    const last = path.at(-1);
    if (last === undefined) return (this.#document.contents as Node | null)?.range?.[0];
    if (isMap(holder)) {
      const pair = holder.items.find(({ key }) => isScalar(key) && String(key.value) === String(last));
      return (pair?.key as Node | undefined)?.range?.[0];
    }
    const node = this.#document.getIn(path, true) as Node | undefined;
    return isAlias(node) ? undefined : node?.range?.[0];
  }
}

function firstLine(text: string): string {
  return text.split('\n')[0]!.replace(/:$/, '');
}

/** `events[3].memory`. */
function formatPath(path: readonly PathStep[]): string {
  return path
    .map((step) => (typeof step === 'number' ? `[${step}]` : `.${step}`))
    .join('')
    .replace(/^\./, '');
}
