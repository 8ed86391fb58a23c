/** What the advice tables say about one status. */

/**
 * What a status leaves to do:
 * `done` nothing; `retry` repeat the same call; `step` first do what was left out, then repeat; `input` correct the
 * operands, then repeat; `td` only this TD (or VCPU) is concerned, and it cannot go on; `firmware` change firmware
 * settings and reboot; `module` needs another module; `reboot` this boot cannot do it any more; `exit` no failure of
 * the call: a TD came back to its host.
 * @public
 */
export type Recovery = 'done' | 'retry' | 'step' | 'input' | 'td' | 'firmware' | 'module' | 'reboot' | 'exit';

/** @internal */
export interface StatusAdvice {
  /** What the status says. */
  readonly meaning: string;
  readonly recovery: Recovery;
  /** What usually brings it about in the host path. */
  readonly cause: string;
  readonly remedy: string;
}

/** Recoveries in words. @internal */
export const RECOVERY_TEXT: Readonly<Record<Recovery, string>> = {
  done: 'nothing to recover: the call did its work, or it was done before',
  retry: 'recoverable: the same call can succeed when it is repeated',
  step: 'recoverable: do the missing step first, then repeat the call',
  input: 'recoverable: correct what was passed in, then repeat the call',
  td: 'the TD or VCPU is concerned, not the host: other TDs go on',
  firmware: 'not recoverable in this boot: change firmware settings, then reboot',
  module: 'not recoverable with this module: another release or build is needed',
  reboot: 'not recoverable in this boot: only a reboot, or a fresh load of the module, starts over',
  exit: 'nothing to recover: the call worked, and this is why the TD gave control back',
};
