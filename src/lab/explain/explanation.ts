/** What an explanation is: the same shape for a status, a leaf, a field, an errno and a log line. */

/** One decoded part, in the order to read it. @public */
export interface Fact {
  readonly label: string;
  readonly text: string;
}

/** One way to get here: the place in the host path (where several exist), the cause, what to do. @public */
export interface Case {
  readonly where?: string;
  readonly cause: string;
  readonly remedy: string;
}

/** One reading of something a person pasted. @public */
export interface Explanation {
  readonly kind: 'status' | 'leaf' | 'field' | 'errno' | 'log';
  /** ABI name, errno name, or the name of the kind of log line. */
  readonly name: string;
  /** The number it stands for, where it has one, as people write it. */
  readonly number?: string;
  /** What it is, in one or two sentences. */
  readonly summary: string;
  readonly facts: readonly Fact[];
  readonly cases: readonly Case[];
  /** The decoded parts for programs. */
  readonly data: Readonly<Record<string, unknown>>;
  /** What a log line is made of: its leaf, status or errno. */
  readonly parts: readonly Explanation[];
}
