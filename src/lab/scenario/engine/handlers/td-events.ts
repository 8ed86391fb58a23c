/** TDs begin, grow, convert and end. */
import { KernelError } from '../../../../abi/errno.ts';
import { ScenarioTd } from '../../td/scenario-td.ts';
import { noSuch } from '../outcome.ts';
import type { ScenarioHost } from '../scenario-host.ts';
import type { Handlers } from './handler.ts';

/** @internal */
export const TD_EVENTS: Handlers<'td-start' | 'td-stop' | 'td-grow' | 'td-convert' | 'balloon'> = {
  'td-start': async (host, { name, memory, vcpus, node }) => {
    if (host.tds.has(name))
      throw new KernelError('EEXIST', 'name-taken', `a TD '${name}' is there already`, { name });
    const tdHost = await host.tdHost();
    const td = ScenarioTd.start(tdHost, { name, memory, vcpus, node });
    host.tds.set(name, td);
    host.touch(td);
  },
  'td-stop': (host, { td: name, draw }) => {
    // One that is dead already is given back by whoever closes it.
    const td = host.tds.get(name) ?? host.findTd(name, draw);
    host.tds.delete(td.figures.name);
    td.stop();
  },
  'td-grow': (host, { td: name, size, draw }) => {
    const td = host.findTd(name, draw);
    live(host, td, () => td.memory.grow(size));
  },
  'td-convert': (host, { td: name, size, to, draw }) => {
    const td = host.findTd(name, draw);
    if (to === 'private' && td.memory.shared.length === 0) throw noSuch('shared-memory', td.figures.name);
    live(host, td, () => {
      if (to !== 'private') td.memory.share(size);
      if (to !== 'shared') td.memory.unshare(size);
    });
  },
  balloon: (host, { td: name, size, draw }) => {
    const td = host.findTd(name, draw);
    live(host, td, () => {
      td.memory.share(size);
      td.memory.forgetShared();
    });
  },
};

/** Work on a living TD: without memory it goes on with less, after a failed SEAMCALL as the policy says. */
function live(host: ScenarioHost, td: ScenarioTd, work: () => void): void {
  try {
    work();
    host.touch(td);
  } catch (error) {
    if (!(error instanceof KernelError) || error.errno === 'ENOMEM') throw error;
    host.callFailed(td, error);
  }
}
