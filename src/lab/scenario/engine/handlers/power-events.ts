/** What ends or stops a kernel, and what changes below it. */
import { updateModule } from '../module-update.ts';
import { EventEnd } from '../outcome.ts';
import type { Handlers } from './handler.ts';

/** @internal */
export const POWER_EVENTS: Handlers<'kexec' | 'suspend' | 'module-update'> = {
  kexec: () => {},
  suspend: () => {},
  'module-update': (host, { release }) => {
    try {
      updateModule(host.kernel, release);
    } catch (error) {
      if (error instanceof EventEnd) for (const td of [...host.living()]) host.kill(td, error.reason);
      throw error;
    }
  },
};
