/** The stages of initialisation, in front of what wants TDX. */
import type { AbstractHost, AbstractState, Step } from '../abstract-host.ts';
import type { AbstractEvent } from '../config.ts';
import {
  allocatePamt,
  beginEnabling,
  configure,
  finishEnabling,
  fixTdxMemory,
  whyNotEnabled,
} from '../enabling.ts';
import { HOST, TDX } from '../layout.ts';

/** Goes through initialisation where nobody has yet, waits while somebody does, and goes on with the step `then`. @internal */
export function enableSteps<E extends AbstractEvent>(
  then: string,
  begin: (host: AbstractHost, s: AbstractState, event: E) => string | null = () => null,
): readonly Step<E>[] {
  const orRefuse = (
    host: AbstractHost,
    s: AbstractState,
    task: number,
    why: string | null,
    next: string,
  ): void => {
    if (why === null) host.goto(s, task, next);
    else host.finish(s, task, 'refused', why);
  };
  return [
    {
      name: 'ask for TDX',
      ways: (host, s) => {
        const { layout } = host;
        const state = s[layout.host(HOST.tdx)];
        if (state === TDX.enabling) return 0;
        // Who begins needs the hot-plug lock.
        return state === TDX.uninitialized && s[layout.host(HOST.lock)] !== 0 ? 0 : 1;
      },
      take: (host, s, task, event) => {
        const refusal = begin(host, s, event);
        if (refusal !== null) return host.finish(s, task, 'refused', refusal);
        const state = s[host.layout.host(HOST.tdx)];
        if (state === TDX.initialized || state === TDX.shutDown) return host.goto(s, task, then);
        orRefuse(host, s, task, whyNotEnabled(host, s) ?? beginEnabling(host, s, task + 1), 'fix TDX memory');
      },
    },
    {
      name: 'fix TDX memory',
      take: (host, s, task) => {
        fixTdxMemory(host, s);
        host.goto(s, task, 'allocate PAMT');
      },
    },
    {
      name: 'allocate PAMT',
      take: (host, s, task) => orRefuse(host, s, task, allocatePamt(host, s), 'configure'),
    },
    {
      name: 'configure',
      take: (host, s, task) => orRefuse(host, s, task, configure(host, s), 'initialise TDMRs'),
    },
    {
      name: 'initialise TDMRs',
      take: (host, s, task) => {
        finishEnabling(host, s);
        host.goto(s, task, then);
      },
    },
  ];
}
