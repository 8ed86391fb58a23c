/**
 * A host saved to bytes and loaded again, after which it goes on identically: memory, processors, module, kernel,
 * clock and entropy. Not saved is what looks on or interferes: listeners, observers, schedulers, fault points, and
 * whatever executes guests.
 */
import { hex } from '../../abi/address.ts';
import { InputError } from '../../abi/input-error.ts';
import { HostKernel } from '../../kernel/host-kernel.ts';
import { Machine } from '../../machine/machine.ts';
import { restoreSeamImages, saveSeamImages } from '../../module/saved-images.ts';
import { TdxModule } from '../../module/tdx-module.ts';
import type { Host } from '../host.ts';
import { decodeContainer, encodeContainer } from './container.ts';

/** Everything of a host, as plain data whose arrays are the live ones. */
function stateOf({ machine, kernel }: Pick<Host, 'machine' | 'kernel'>) {
  return { machine: machine.save(), images: saveSeamImages(machine), kernel: kernel.save() };
}

/**
 * The host as bytes for a file. Throws InputError while a vCPU is entered, TDX initialisation is under way or processes
 * run: what they are in the middle of cannot be written down; and for a host with a hypervisor below its kernel.
 * @public
 */
export function saveHost(host: Pick<Host, 'machine' | 'kernel'>): Uint8Array {
  const { module } = host.machine.seam;
  const entered = module instanceof TdxModule ? module.running.find((vcpu) => vcpu !== undefined) : undefined;
  if (entered !== undefined) {
    throw new InputError(
      `the host cannot be saved while vCPU ${hex(entered.address)} is entered on LP ${entered.lp.index}; save it after the TD exit`,
    );
  }
  if (host.machine.hypervisor !== null) {
    throw new InputError(
      `the host cannot be saved: what the hypervisor ${host.machine.hypervisor.name} keeps is no part of a saved host`,
    );
  }
  if (host.kernel.isEnabling) {
    throw new InputError(
      'the host cannot be saved while TDX initialisation is under way; save it afterwards',
    );
  }
  const { openObjects } = host.kernel;
  if (openObjects.total > 0) {
    const alive = Object.entries(openObjects.all).map(([kind, count]) => `${count} ${kind}`);
    throw new InputError(
      `the host cannot be saved while processes run or have files open (${alive.join(', ')}); let them exit first`,
    );
  }
  return encodeContainer(stateOf(host));
}

/**
 * The host that `saveHost` made `bytes` of. Throws InputError, calling them `name`, where they are no saved host, cut,
 * damaged, or saved by an older or newer version.
 * @public
 */
export function loadHost(bytes: Uint8Array, name = 'the saved host'): Host {
  const saved = decodeContainer(bytes, name) as ReturnType<typeof stateOf>;
  const machine = new Machine(saved.machine.description);
  machine.restore(saved.machine);
  restoreSeamImages(machine, saved.images);
  return { machine, kernel: HostKernel.restored(machine, saved.kernel), failure: null };
}
