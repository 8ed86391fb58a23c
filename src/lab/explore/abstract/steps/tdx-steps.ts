/** TDX itself: its first user, another kernel. */
import type { StepsOf } from '../abstract-host.ts';
import { isTdxOn } from '../abstract-host.ts';
import type { AbstractEvent } from '../config.ts';
import { HOST, LIFE, OWNER } from '../layout.ts';
import { enableSteps } from './enable-steps.ts';

/** @internal */
export const TDX_STEPS: { readonly [K in 'use-tdx' | 'kexec']: StepsOf<K> } = {
  'use-tdx': [
    ...enableSteps<Extract<AbstractEvent, { do: 'use-tdx' }>>('have it'),
    { name: 'have it', take: (host, s, task) => host.finish(s, task, 'done') },
  ],
  kexec: [
    {
      name: 'start another kernel',
      take: (host, s, task, { crash }) => {
        const { layout } = host;
        if (isTdxOn(host, s) && !crash && host.knob(s, 'kexec') === 'refuse')
          return host.finish(s, task, 'refused', 'kexec-refused');
        // Nothing of this kernel's goes on.
        for (let td = 0; td < layout.owners; td++) {
          if (s[layout.owner(td, OWNER.status)] === LIFE.living && host.config.owners[td]!.isTd)
            host.fates.push(td);
        }
        host.finish(s, task, 'done');
        s[layout.host(HOST.down)] = 1;
      },
    },
  ],
};
