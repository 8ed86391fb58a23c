/** `tdxlab td HOST PROGRAM`: runs a scripted TD on a host and prints its life. */
import { pathToFileURL } from 'node:url';
import { InputError } from '../../abi/input-error.ts';
import type { GuestProgram } from '../../lab/guest/program.ts';
import { GUEST_PROGRAMS } from '../../lab/guest/programs.ts';
import { createHost } from '../../lab/host.ts';
import { runProgram, type TdEvent } from '../../lab/td/run-program.ts';
import { formatCount, toJson } from '../format.ts';
import { hostOptions, kernelPolicy, readHost } from '../host-operands.ts';
import { style } from '../io.ts';
import { writeSavedHost } from '../saved-host.ts';
import { printWrapped } from '../table.ts';
import { EXIT, type Run } from '../verb.ts';

export const run: Run = async (operands, options, io) => {
  const choices = hostOptions(options);
  const sources = operands.slice(0, -1);
  if (sources.length === 0)
    throw new InputError(`td needs a host and a program; programs are ${names()}, or a file`);
  const program = await findProgram(operands.at(-1)!);
  const survey = await readHost(sources);
  const host = createHost(survey.machine, {
    module: choices.module,
    policy: kernelPolicy(options, choices),
    hints: survey.kernel,
  });
  await host.kernel.boot();
  if (host.kernel.state !== 'initialized') {
    const failed = host.kernel.stages.find((stage) => stage.state === 'failed');
    io.err(`tdxlab: TDX does not come up on this host: ${failed?.reason?.text ?? 'it is not enabled'}`);
    return EXIT.no;
  }
  const events: TdEvent[] = [];
  const json = options.json === true;
  const watch = (event: TdEvent): void => {
    events.push(event);
    if (json) return;
    const time = `[${(event.timeNs / 1e9).toFixed(6).padStart(12)}]`;
    printWrapped(io, event.text, `${time} ${style(io, 'cyan', event.who.padEnd(7))} `);
  };
  const result = runProgram(host, program, watch, options.save !== undefined);
  if (json) io.out(toJson({ program: program.name, ...result, events }));
  else {
    io.out();
    const what = `${formatCount(result.entries)} TD entries, ${formatCount(result.seamcalls)} SEAMCALLs, ${formatCount(result.pages)} pages`;
    printWrapped(
      io,
      `${program.name} ${result.finished ? 'ran to its end' : 'did not come to its end'}: ${what}.`,
    );
  }
  if (options.save !== undefined) writeSavedHost(String(options.save), host, io);
  return result.finished ? EXIT.done : EXIT.no;
};

function names(): string {
  return [...GUEST_PROGRAMS.keys()].join(', ');
}

/** An embedded program, or a module that exports `program`. */
async function findProgram(name: string): Promise<GuestProgram> {
  const embedded = GUEST_PROGRAMS.get(name);
  if (embedded !== undefined) return embedded;
  if (!/\.(ts|js|mts|mjs)$/.test(name))
    throw new InputError(`there is no program '${name}'; known are ${names()}, or name a .ts file`);
  let loaded: { readonly program?: GuestProgram };
  try {
    loaded = (await import(pathToFileURL(name).href)) as { readonly program?: GuestProgram };
  } catch (error) {
    throw new InputError(`${name}: cannot be loaded: ${(error as Error).message.split('\n')[0]}`);
  }
  if (typeof loaded.program?.run !== 'function')
    throw new InputError(`${name}: does not export a guest program as 'program'`);
  return loaded.program;
}
