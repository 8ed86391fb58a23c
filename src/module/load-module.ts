import type { Machine } from '../machine/machine.ts';
import type { ModuleRelease } from './releases.ts';
import { TdxModule } from './tdx-module.ts';

/** Pages of hand-off data that a module image asks the loader to set aside. */
const HANDOFF_PAGES = 14;

/**
 * Loads a module into the SEAM range as a loader does, with the hand-off versions that its signature names. It is at
 * SYSINIT_PENDING afterwards; hand-off data of a module before it stay.
 * @public
 */
export function loadModule(machine: Machine, release: ModuleRelease): TdxModule {
  const module = new TdxModule(machine, release);
  machine.seam.handoff = { ...release.handoff, pages: HANDOFF_PAGES };
  machine.seam.module = module;
  return module;
}
