/** What is known about a choice: its values, who argued for each and why, and what was said against it. */

/** @public */
export interface KnobValue<T> {
  readonly value: T;
  /** What the kernel does. */
  readonly meaning: string;
  /** Who wanted it. */
  readonly by: string;
  /** The argument for it. */
  readonly why: string;
  /** The argument against it, which a test shows happening. */
  readonly weakness: string;
}

/** When a knob may change: until initialisation has begun, or any time. @public */
export type KnobChange = 'before-enabling' | 'any-time';

/** @public */
export interface Knob<T> {
  readonly title: string;
  readonly changes: KnobChange;
  /** The default first. Empty for `tdxNodes`, which takes a list of node numbers. */
  readonly values: readonly KnobValue<T>[];
}
