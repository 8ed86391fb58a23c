/** What ends or stops a kernel, and what changes below it. */
import { KernelError, type Reason } from '../../../../abi/errno.ts';
import { HostKernel } from '../../../../kernel/host-kernel.ts';
import type { SleepState } from '../../../../kernel/power.ts';
import { moduleImage } from '../../../../module/module-image.ts';
import { findRelease } from '../../../../module/releases.ts';
import { EventEnd } from '../outcome.ts';
import type { Handlers } from './handler.ts';

const SLEEP: Readonly<Record<string, SleepState>> = { s3: 's3', s2idle: 's2idle', hibernate: 'disk' };
/** What the next kernel writes to a page it finds free: a part of a cache line. */
const WORD = new Uint8Array(8).fill(0xa5);

/** @internal */
export const POWER_EVENTS: Handlers<'kexec' | 'suspend' | 'module-update'> = {
  kexec: async (host, { crash }) => {
    const { kernel } = host;
    const outcome = kernel.kexec({ crash });
    const formerTdPages = [...host.tds.values()].map(({ tdr }) => tdr);
    for (const td of [...host.living()])
      host.kill(td, { code: 'kexec', text: 'another kernel was started', data: {} });
    if (!outcome.started) {
      host.goDown(outcome.why);
      throw new EventEnd('failed', outcome.why);
    }
    const next = new HostKernel(host.host.machine, { policy: kernel.policy, config: kernel.config });
    host.adopt(next);
    await next.boot();
    useMemory(next, formerTdPages);
    // Another kernel runs; whether it has TDX is another question, and the reason says it.
    if (!outcome.moduleDisabled && kernel.enabled !== null)
      throw new EventEnd('failed', withoutTdx(outcome.why));
  },
  suspend: ({ kernel }, { to }) => {
    kernel.suspend(SLEEP[to]!);
    if (to === 's2idle') kernel.resume();
  },
  'module-update': async (host, { release }) => {
    const { kernel } = host;
    try {
      await kernel.updateModule(moduleImage(findRelease(release)!));
    } catch (error) {
      if (!(error instanceof KernelError) || kernel.state === 'initialized') throw error;
      for (const td of [...host.living()]) host.kill(td, error.reason);
      throw new EventEnd('failed', error.reason);
    }
  },
};

/** The next kernel uses its memory, also what TDs had: where that is still private and the CPU has the erratum, #MC. */
function useMemory({ cpus }: HostKernel, pages: readonly number[]): void {
  const { lp } = cpus[0]!;
  for (const page of pages) {
    lp.store(page, WORD);
    lp.load(page, WORD.length);
  }
}

function withoutTdx({ text, data }: Reason): Reason {
  return { code: 'kexec-without-tdx', text: `the next kernel runs without TDX: ${text}`, data };
}
