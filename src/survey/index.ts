/** Readers of real machines: logs, maps and tables in, a machine description out. */

export { InputError } from '../abi/input-error.ts';
export * from './describe-machine.ts';
export type { EmbeddedHost, Expected } from './embedded/embedded-host.ts';
export { DEFAULT_HOST, EMBEDDED_HOSTS } from './embedded/hosts.ts';
export type { Collection } from './live/collection.ts';
export * from './live/read-machine.ts';
export * from './live/write-collection.ts';
export * from './read-host.ts';
export * from './survey.ts';
export { validateMachine } from './validate-machine.ts';
