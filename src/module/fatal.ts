/**
 * Ends the module: it met a state of the CPU or of itself that its rules exclude. Hardware shuts SEAM down on all
 * processors and no status is returned; here it is an Error.
 * @internal
 */
export function fatal(why: string): never {
  throw new Error(`TDX module fatal error: ${why}`);
}
