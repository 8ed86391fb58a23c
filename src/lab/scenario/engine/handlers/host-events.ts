/** The host's own programs, its processors, and what else takes KeyIDs. */
import { PAGE_4K } from '../../../../abi/address.ts';
import { KernelError } from '../../../../abi/errno.ts';
import { parseKnob } from '../../../../kernel/policy/knobs.ts';
import { knobNamed } from '../../../../kernel/sysfs-policy.ts';
import { Chance } from '../../chance.ts';
import { noSuch } from '../outcome.ts';
import type { ScenarioHost } from '../scenario-host.ts';
import type { Handlers } from './handler.ts';

/** @internal */
export const HOST_EVENTS: Handlers<
  | 'host-alloc'
  | 'host-free'
  | 'fragment'
  | 'compact'
  | 'cpu-offline'
  | 'cpu-online'
  | 'use-tdx'
  | 'keyid-shortage'
  | 'set'
> = {
  'host-alloc': ({ memory }, { name, size, share = 0, node, movable, 'non-tdx': nonTdxOk }) => {
    if (memory.has(name))
      throw new KernelError('EEXIST', 'name-taken', `'${name}' has memory already`, { name });
    const pages = size === undefined ? Math.floor(memory.freePages(node) * share) : size / PAGE_4K;
    memory.take(name, pages, {
      movable,
      nonTdxOk,
      ...(node === undefined ? {} : { node, fallback: false }),
    });
  },
  'host-free': ({ memory }, { host: name }) => {
    if (!memory.has(name)) throw noSuch('allocation', name);
    memory.free(name);
  },
  fragment: ({ memory, scenario }, { share, node, name }) => {
    const seed = Math.floor(new Chance(scenario.seed, name).next() * 2 ** 32);
    memory.fragment(share, node, BigInt(seed));
  },
  compact: ({ memory }) => memory.compact(),
  'cpu-offline': async (host, event) => {
    for (const cpu of cpusOf(host, event, true)) await host.kernel.cpuOffline(cpu);
  },
  'cpu-online': async (host, event) => {
    for (const cpu of cpusOf(host, event, false)) await host.kernel.cpuOnline(cpu);
  },
  'use-tdx': async (host) => {
    await host.tdHost();
  },
  'keyid-shortage': ({ kernel, foreignKeyIds }, { leave }) => {
    const { keyIds } = kernel;
    while (keyIds.capacity - keyIds.current > leave) foreignKeyIds.push(keyIds.alloc());
    while (keyIds.capacity - keyIds.current < leave) {
      const keyId = foreignKeyIds.pop();
      if (keyId === undefined) return;
      keyIds.free(keyId);
    }
  },
  set: ({ kernel }, { knob: name, value }) => {
    const knob = knobNamed(name);
    if (knob === undefined) throw noSuch('knob', name);
    kernel.setPolicy(knob, parseKnob(knob, String(value)));
  },
};

/** The CPU of an event, or those of a package that are online, or offline. */
function cpusOf(
  { kernel }: ScenarioHost,
  event: { cpu?: number | undefined; package?: number | undefined },
  online: boolean,
): readonly number[] {
  if (event.cpu !== undefined) return [event.cpu];
  const found = kernel.cpus.filter((cpu) => cpu.packageId === event.package && cpu.online === online);
  if (found.length === 0) throw noSuch('cpu', `${online ? 'online' : 'offline'} in package ${event.package}`);
  return found.map(({ index }) => index);
}
