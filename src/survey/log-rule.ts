import type { Evidence, Place } from './evidence.ts';

/**
 * What one kind of kernel log line tells. `word` is looked for first, because that is cheap; `pattern` is not
 * anchored, so timestamps, levels and journal prefixes in front do not matter.
 * @internal
 */
export interface LogRule {
  readonly word: string;
  readonly pattern: RegExp;
  readonly take: (evidence: Evidence, match: RegExpExecArray, place: Place) => void;
}
