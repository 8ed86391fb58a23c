/** The kernel's log ring: machine-readable entries with virtual timestamps, and listeners that print as it happens. */
import type { VirtualClock } from '../machine/clock.ts';

/** Severities used on the TDX host path, most severe first. @public */
export type LogLevel = 'err' | 'warn' | 'info' | 'debug';

/** One line of the log. @public */
export interface LogEntry {
  /** Virtual nanoseconds since power-on. */
  readonly timeNs: number;
  readonly level: LogLevel;
  /** Subsystem, printed before the text: `virt/tdx`. */
  readonly prefix: string;
  readonly text: string;
  /** Stable code for programs, where the line tells a failure or a figure. */
  readonly code?: string;
}

/** Prefix of the core TDX host support (Linux host rules 1.10b). @public */
export const TDX_PREFIX = 'virt/tdx';

/** Entries kept before the oldest are dropped. */
const DEFAULT_CAPACITY = 4096;

/** @public */
export class LogRing {
  readonly #clock: VirtualClock;
  readonly #capacity: number;
  readonly #listeners = new Set<(entry: LogEntry) => void>();
  #entries: LogEntry[] = [];
  /** Entries that no longer fit. */
  dropped = 0;

  constructor(clock: VirtualClock, capacity = DEFAULT_CAPACITY) {
    this.#clock = clock;
    this.#capacity = capacity;
  }

  /** Entries still in the ring, oldest first. */
  get entries(): readonly LogEntry[] {
    return this.#entries;
  }

  err(text: string, code?: string): void {
    this.write('err', TDX_PREFIX, text, code);
  }

  warn(text: string, code?: string): void {
    this.write('warn', TDX_PREFIX, text, code);
  }

  info(text: string, code?: string): void {
    this.write('info', TDX_PREFIX, text, code);
  }

  debug(text: string, code?: string): void {
    this.write('debug', TDX_PREFIX, text, code);
  }

  /** Appends a line of any subsystem and tells the listeners. */
  write(level: LogLevel, prefix: string, text: string, code?: string): void {
    const timeNs = this.#clock.nowNs;
    const entry: LogEntry =
      code === undefined ? { timeNs, level, prefix, text } : { timeNs, level, prefix, text, code };
    this.#entries.push(entry);
    // Dropped half at a time, so that a full ring does not move its whole array for every line.
    if (this.#entries.length >= this.#capacity * 1.5) {
      this.dropped += this.#entries.length - this.#capacity;
      this.#entries = this.#entries.slice(-this.#capacity);
    }
    for (const listener of this.#listeners) listener(entry);
  }

  /** State for a saved machine; listeners belong to whoever looks on. */
  save() {
    return { entries: this.#entries, dropped: this.dropped };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<LogRing['save']>): void {
    this.#entries = saved.entries;
    this.dropped = saved.dropped;
  }

  /** Calls `listener` for every line from now on; returns the function that ends it. */
  subscribe(listener: (entry: LogEntry) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** A line as a kernel prints it: `[    1.423525] virt/tdx: text`. @public */
export function formatLogEntry(entry: LogEntry): string {
  const seconds = (entry.timeNs / 1e9).toFixed(6).padStart(12);
  return `[${seconds}] ${entry.prefix}: ${entry.text}`;
}
