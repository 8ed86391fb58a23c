/** Operation states of a TD (module facts 6), as OP_STATE_INCORRECT reports them in its detail. */

/** In the order of their numbers. @public */
export const OP_STATES = [
  'UNINITIALIZED',
  'INITIALIZED',
  'RUNNABLE',
  'LIVE_EXPORT',
  'PAUSED_EXPORT',
  'POST_EXPORT',
  'MEMORY_IMPORT',
  'STATE_IMPORT',
  'POST_IMPORT',
  'LIVE_IMPORT',
  'FAILED_IMPORT',
  'START_IMPORT',
] as const;

/** @public */
export type OpStateName = (typeof OP_STATES)[number];

/** TDCS.OP_STATE by name. @public */
export const OP_STATE = Object.fromEntries(OP_STATES.map((name, value) => [name, value])) as Readonly<
  Record<OpStateName, number>
>;
