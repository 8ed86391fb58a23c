/** Puts an ordinary script on top of a guest kernel, which does for it what its technology asks of guests. */
import {
  type GuestAction,
  type GuestAnswer,
  type GuestCpu,
  GuestException,
  type GuestFlow,
  type GuestScript,
} from './flow.ts';

/** What stands between a script and its vCPU. @internal */
export interface GuestKernel {
  /** Before the script's first step. */
  start?(): GuestFlow;
  /** One step of the script; an exception thrown here reaches it. */
  perform(action: GuestAction): GuestFlow<GuestAnswer>;
}

/** `script` with every step performed by the kernel that `boot` makes for its vCPU. @internal */
export function underKernel(script: GuestScript, boot: (cpu: GuestCpu) => GuestKernel): GuestScript {
  return function* (cpu) {
    const kernel = boot(cpu);
    if (kernel.start !== undefined) yield* kernel.start();
    const program = script(cpu);
    let step = program.next();
    while (step.done !== true) {
      let answer: GuestAnswer;
      try {
        answer = yield* kernel.perform(step.value);
      } catch (error) {
        if (!(error instanceof GuestException)) throw error;
        step = program.throw(error);
        continue;
      }
      step = program.next(answer);
    }
  };
}
