/** `tdxlab sysfs HOST [PATH]`: the files a brought-up host exposes to programs. */
import { KernelError } from '../../abi/errno.ts';
import { InputError } from '../../abi/input-error.ts';
import { Sysfs } from '../../kernel/sysfs.ts';
import { createHost } from '../../lab/host.ts';
import { toJson } from '../format.ts';
import { hostOptions, kernelPolicy, readHost } from '../host-operands.ts';
import { EXIT, type Run } from '../verb.ts';

export const run: Run = async (operands, options, io) => {
  const choices = hostOptions(options);
  const policy = kernelPolicy(options, choices);
  const { sources, path } = splitOperands(operands);
  if (options.write !== undefined && path === undefined)
    throw new InputError('--write needs the path of a file to write');
  const survey = await readHost(sources);
  const { kernel } = createHost(survey.machine, { module: choices.module, policy, hints: survey.kernel });
  await kernel.boot();
  const sysfs = new Sysfs(kernel);
  try {
    if (options.write !== undefined) sysfs.write(path!, String(options.write));
    const files = sysfs
      .files(path ?? '/sys')
      .map(([name, file]) => ({ path: name, mode: file.mode, ...readOrRefusal(file.read) }));
    if (options.json === true)
      io.out(toJson(files.map((file) => ({ ...file, mode: file.mode.toString(8) }))));
    else if (files.length === 1 && files[0]!.path === path) io.out(files[0]!.value ?? files[0]!.error);
    else for (const file of files) io.out(`${file.path}: ${file.value ?? file.error}`);
    return files.length === 1 && files[0]!.error !== undefined ? EXIT.no : EXIT.done;
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    io.err(`tdxlab: ${error.errno}: ${error.reason.text}`);
    return EXIT.no;
  }
};

/** The last operand is the path when it lies under /sys; everything before it is the host. */
function splitOperands(operands: readonly string[]): { sources: readonly string[]; path?: string } {
  const last = operands.at(-1)!;
  if (!/^\/sys(\/|$)/.test(last)) return { sources: operands };
  if (operands.length === 1) throw new InputError(`sysfs needs a host before the path ${last}`);
  return { sources: operands.slice(0, -1), path: last.length > 1 ? last.replace(/\/+$/, '') : last };
}

/** A file's value, or the refusal that reading it gives. */
function readOrRefusal(read: () => string): { value?: string; error?: string } {
  try {
    return { value: read() };
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    return { error: `${error.errno}: ${error.reason.text}` };
  }
}
