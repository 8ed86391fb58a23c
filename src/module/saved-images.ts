/** The software in the SEAM range for a saved machine, with what it keeps beside the simulated memory. */
import type { Machine } from '../machine/machine.ts';
import { restorePageMetadata, savePageMetadata } from './pamt.ts';
import { SeamLoader } from './seamldr.ts';
import { measurementsOf, TdMeasurement } from './td/measurement.ts';
import { TdxModule } from './tdx-module.ts';

/**
 * State of the module and P-SEAMLDR of `machine`. Throws Error for images that are none of this project's, as tests
 * may load.
 * @public
 */
export function saveSeamImages({ seam, memory }: Machine) {
  const { module, loader } = seam;
  if (module !== null && !(module instanceof TdxModule)) throw new Error('the module cannot be saved');
  if (loader !== null && !(loader instanceof SeamLoader)) throw new Error('the loader cannot be saved');
  return {
    module: module?.save() ?? null,
    loader: loader?.save() ?? null,
    pageMetadata: savePageMetadata(memory),
    measurements: new Map([...measurementsOf(memory)].map(([tdr, { message }]) => [tdr, message])),
  };
}

/** Fills the slots of `machine`, whose hardware state is restored already, with what `saveSeamImages` gave. @public */
export function restoreSeamImages(machine: Machine, saved: ReturnType<typeof saveSeamImages>): void {
  const { seam, memory } = machine;
  restorePageMetadata(memory, saved.pageMetadata);
  for (const [tdr, message] of saved.measurements) {
    const measurement = new TdMeasurement(memory);
    measurement.restore(message);
    measurementsOf(memory).set(tdr, measurement);
  }
  if (saved.module !== null) seam.module = TdxModule.restored(machine, saved.module);
  if (saved.loader !== null) seam.loader = SeamLoader.restored(machine, saved.loader);
}
