/** `tdxlab vm [BACKEND] [HOST]`: builds and runs an example VM of each technology, through system calls alone. */
import { GIB, KIB, MIB, PAGE_4K, TIB } from '../../abi/address.ts';
import { KernelError } from '../../abi/errno.ts';
import { formatBytes } from '../../abi/format-bytes.ts';
import { InputError } from '../../abi/input-error.ts';
import type { Look } from '../../lab/vm/look.ts';
import {
  runVmExample,
  type VmEvent,
  type VmExample,
  type VmExampleOptions,
} from '../../lab/vm/vm-example.ts';
import { startVmHost, VM_BACKENDS, type VmBackend, type VmHost } from '../../lab/vm/vm-host.ts';
import { toJson } from '../format.ts';
import { readHost } from '../host-operands.ts';
import { readImage } from '../image-file.ts';
import { type Io, style } from '../io.ts';
import { printComparison, printEvent } from '../print-example.ts';
import { printWrapped } from '../table.ts';
import { EXIT, type Options, type Run } from '../verb.ts';

/** The example's guest works between 32 and 64 MiB. */
const LEAST_MEMORY = 64 * MIB;

export const run: Run = async ([name, ...sources], options, io) => {
  const backends = name === undefined ? VM_BACKENDS : [parseBackend(name)];
  const chosen = parseOptions(options, name);
  const survey = sources.length === 0 ? null : await readHost(sources);
  const json = options.json === true;
  const results: (VmExample & { readonly host: string; readonly events: readonly VmEvent[] })[] = [];
  for (const [i, backend] of backends.entries()) {
    const host = await startVmHost(
      backend,
      survey?.machine ?? null,
      survey === null ? {} : { hints: survey.kernel },
    );
    const events: VmEvent[] = [];
    if (!json) printTitle(io, backend, host, i > 0);
    const watch = (event: VmEvent): void => {
      events.push(event);
      if (!json) printEvent(io, event);
    };
    try {
      const example = await runVmExample(host, backend, watch, chosen);
      results.push({ ...example, host: host.machine.description.name, events });
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      io.err(`tdxlab: ${backend}: ${error.reason.text} (${error.errno})`);
      return EXIT.no;
    }
  }
  if (json) io.out(toJson({ examples: results.map(withoutBytes) }));
  else if (results.length > 1) {
    io.out();
    printWrapped(io, style(io, 'bold', 'The secret of each guest, as the host got to see it'));
    printComparison(io, results);
  }
  return results.every(({ ok }) => ok) ? EXIT.done : EXIT.no;
};

function parseBackend(name: string): VmBackend {
  const backend = VM_BACKENDS.find((known) => known === name);
  if (backend !== undefined) return backend;
  throw new InputError(`there are no VMs of the kind '${name}'; known are ${VM_BACKENDS.join(', ')}`);
}

function parseOptions(options: Options, backend: string | undefined): VmExampleOptions {
  const image = options.image as string | undefined;
  if (image !== undefined && backend !== 'tdx')
    throw new InputError('--image is for tdx: say `vm tdx --image FILE`');
  return {
    memoryBytes: options.memory === undefined ? 2 * LEAST_MEMORY : parseMemory(String(options.memory)),
    vcpus: options.vcpus === undefined ? 1 : parseVcpus(String(options.vcpus)),
    trace: options.trace === true,
    ...(image !== undefined && { image: readImage(image) }),
  };
}

const UNITS: Readonly<Record<string, number>> = { '': 1, K: KIB, M: MIB, G: GIB, T: TIB };

function parseMemory(text: string): number {
  const { digits = '', unit = '' } = /^(?<digits>\d+)(?<unit>[KMGT]?)(?:iB)?$/i.exec(text)?.groups ?? {};
  const bytes = Number(digits) * UNITS[unit.toUpperCase()]!;
  if (digits === '' || !Number.isSafeInteger(bytes)) {
    throw new InputError(`--memory takes a size such as 512M or 4G, not '${text}'`);
  }
  if (bytes % PAGE_4K !== 0) throw new InputError(`--memory takes a multiple of 4 KiB, not '${text}'`);
  if (bytes >= LEAST_MEMORY) return bytes;
  throw new InputError(`--memory: the example needs at least ${formatBytes(LEAST_MEMORY)}, not '${text}'`);
}

function parseVcpus(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new InputError(`--vcpus takes a number from 1 on, not '${text}'`);
}

const TITLES: Readonly<Record<VmBackend, string>> = {
  plain: 'a VM that nothing protects',
  'sw-protected': 'private memory that only KVM keeps private, for testing',
  tdx: 'a TD: its memory under a key of its own, all of it in the hands of the TDX module',
  snp: 'an SEV-SNP guest: encrypted, and a table says who owns each page',
  pkvm: "a protected VM of pKVM: a hypervisor below the kernel takes the guest's pages out of its reach",
};

function printTitle(io: Io, backend: VmBackend, { machine }: VmHost, isNext: boolean): void {
  if (isNext) io.out();
  printWrapped(io, `${style(io, 'bold', backend)} on ${machine.description.name}: ${TITLES[backend]}`);
}

/** What was read is told as text. */
function withoutBytes({ looks, ...example }: VmExample): object {
  const told = (look: Look | null): object | null => look && { how: look.how, result: look.result };
  const { secret, shared, again } = looks;
  return { ...example, looks: { secret: secret.map(told), shared: told(shared), again: told(again) } };
}
