/**
 * Input that cannot be used: one sentence that names the file and the line, field or option, and what to do.
 * The command line prints it and exits with code 2.
 * @public
 */
export class InputError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'InputError';
  }
}
