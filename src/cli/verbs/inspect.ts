/** `tdxlab inspect FILE|HOST`: what is in a saved host, or in one that is brought up first. */
import { InputError } from '../../abi/input-error.ts';
import { createHost, type Host } from '../../lab/host.ts';
import { inspectHost } from '../../lab/inspect/inspect-host.ts';
import { toJson } from '../format.ts';
import { hostOptions, kernelPolicy, readHost } from '../host-operands.ts';
import { printInspection, printTdAlone } from '../print-inspection.ts';
import { readSavedHost } from '../saved-host.ts';
import { EXIT, type Options, type Run } from '../verb.ts';

export const run: Run = async (sources, options, io) => {
  const tdr = options.td === undefined ? undefined : parseTdr(String(options.td));
  const saved = sources.length === 1 ? readSavedHost(sources[0]!) : null;
  const host = saved === null ? await bringUp(sources, options) : saved;
  if (saved !== null) refuseChoices(options);
  const inspection = inspectHost(host, { tdr, sept: options.sept === true });
  if (options.json === true) io.out(toJson(inspection));
  else if (tdr === undefined) printInspection(io, inspection);
  else printTdAlone(io, inspection);
  return EXIT.done;
};

function parseTdr(text: string): number {
  if (/^0x[0-9a-f]{1,13}$/i.test(text)) return Number(text);
  throw new InputError(`--td takes the address of a TDR such as 0x100000000, not '${text}'`);
}

async function bringUp(sources: readonly string[], options: Options): Promise<Host> {
  const choices = hostOptions(options);
  const policy = kernelPolicy(options, choices);
  const survey = await readHost(sources);
  const host = createHost(survey.machine, { module: choices.module, policy, hints: survey.kernel });
  await host.kernel.boot();
  return host;
}

/** A saved host is what it is. */
function refuseChoices(options: Options): void {
  const choice = ['holes', 'module', 'dynamicPamt', 'policy'].find((name) => options[name] !== undefined);
  if (choice === undefined) return;
  const flag = choice.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
  throw new InputError(`--${flag} chooses how a host comes up, and a saved one is up already; leave it out`);
}
