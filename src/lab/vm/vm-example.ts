/**
 * The life of a VM: user space builds it by system calls, a scripted guest keeps a secret, shares a page and takes it
 * back, and the host looks at both.
 */
import { hex } from '../../abi/address.ts';
import { formatBytes } from '../../abi/format-bytes.ts';
import { onlineCpus } from '../../kernel/cpu.ts';
import { startProcess } from '../../kernel/process/process.ts';
import type { SystemCalls } from '../../kernel/process/system-calls.ts';
import type { Task } from '../../kernel/process/task.ts';
import type { BackendName } from '../../kvm/backend.ts';
import { TracedSystemCalls } from '../../vmm/trace/traced-system-calls.ts';
import { POWER_SWITCH, type PortDevice } from '../../vmm/vm/devices.ts';
import { privateBytes, userAddressOf } from '../../vmm/vm/guest-memory.ts';
import type { GuestVm } from '../../vmm/vm/guest-vm.ts';
import { runVcpu } from '../../vmm/vm/run-vcpu.ts';
import { SerialPort } from '../../vmm/vm/serial-port.ts';
import type { VcpuEnd } from '../../vmm/vm/vcpu-run.ts';
import { setGuestScript } from '../kvm-host.ts';
import { accountOf, type HostAccount } from './account.ts';
import { buildExample, type ExampleVm, type ExampleVmOptions } from './build-example.ts';
import {
  EXAMPLE_PAGES,
  EXAMPLE_STEPS,
  EXAMPLE_TEXTS,
  exampleScript,
  type GuestPlatform,
  STEP_PORT,
} from './example-guest.ts';
import { addressesOf, type Look, lookAtFile, lookAtMemory, lookAtPhysical, tryStore } from './look.ts';
import { launchDigestOf } from './measured.ts';
import { guestPlatform } from './platforms.ts';
import type { VmHost } from './vm-host.ts';

/** Something in the life of a VM, for whoever watches. @public */
export interface VmEvent {
  /** Virtual nanoseconds. */
  readonly timeNs: number;
  /** `call` is a system call of user space. */
  readonly who: 'host' | 'guest' | 'call';
  readonly text: string;
  /** The story is complete without it. */
  readonly isDetail: boolean;
}

/** @public */
export interface VmExampleOptions extends ExampleVmOptions {
  /** Tell every system call. */
  readonly trace?: boolean;
}

/** @public */
export interface VmExample {
  readonly backend: BackendName;
  readonly measurement: {
    readonly name: 'MRTD' | 'launch digest';
    readonly predicted: string;
    /** As the technology measured it; null when the guest could not tell. */
    readonly measured: string | null;
  } | null;
  /** What the guest printed. */
  readonly console: readonly string[];
  /** How the host saw the secret, and the shared page while it was shared and afterwards. */
  readonly looks: {
    readonly secret: readonly Look[];
    readonly shared: Look | null;
    readonly again: Look | null;
  };
  readonly end: VcpuEnd;
  readonly before: HostAccount;
  readonly after: HostAccount;
  /** The guest came to its end, was measured as foretold, and everything was given back. */
  readonly ok: boolean;
}

/** Runs the example of `backend` on a host that has it. Throws KernelError and InputError of what cannot be built. @public */
export async function runVmExample(
  host: VmHost,
  backend: BackendName,
  watch: (event: VmEvent) => void,
  options: VmExampleOptions = {},
): Promise<VmExample> {
  const before = accountOf(host);
  const task = startProcess(host.kernel);
  const example = new Example(host, backend, task, watch, options);
  try {
    const result = await example.run();
    await task.exit();
    const after = accountOf(host);
    const isReturned = JSON.stringify(after) === JSON.stringify(before);
    example.tell('host', isReturned ? 'pages, keys and files are all back' : 'NOT ALL IS BACK');
    const { measurement } = result;
    const isAsForetold = measurement === null || measurement.measured === measurement.predicted;
    const ok = isReturned && isAsForetold && result.end.kind === 'power-off';
    return { backend, ...result, before, after, ok };
  } finally {
    await task.exit();
  }
}

class Example {
  readonly #host: VmHost;
  readonly #backend: BackendName;
  readonly #task: Task;
  readonly #watch: (event: VmEvent) => void;
  readonly #options: VmExampleOptions;
  readonly #calls: SystemCalls;
  readonly #platform: GuestPlatform;
  readonly #console: string[] = [];
  readonly #looks: { secret: Look[]; shared: Look | null; again: Look | null } = {
    secret: [],
    shared: null,
    again: null,
  };
  /** Step that the guest is at. */
  #step = 0;
  #lastCall: string | null = null;
  #repeats = 0;

  constructor(
    host: VmHost,
    backend: BackendName,
    task: Task,
    watch: (event: VmEvent) => void,
    options: VmExampleOptions,
  ) {
    this.#host = host;
    this.#backend = backend;
    this.#task = task;
    this.#watch = watch;
    this.#options = options;
    this.#platform = guestPlatform(backend, host);
    this.#calls = options.trace === true ? new TracedSystemCalls(task, this.#traced) : task;
  }

  /** Calls that repeat the one before are counted. */
  tell(who: VmEvent['who'], text: string, isDetail = false): void {
    if (who === 'call' && text === this.#lastCall) {
      this.#repeats++;
      return;
    }
    const { nowNs: timeNs } = this.#host.machine.clock;
    if (this.#repeats > 0)
      this.#watch({ timeNs, who: 'call', text: `(the same ${this.#repeats} more times)`, isDetail });
    this.#repeats = 0;
    this.#lastCall = who === 'call' ? text : null;
    this.#watch({ timeNs, who, text, isDetail });
  }

  async run(): Promise<Omit<VmExample, 'backend' | 'before' | 'after' | 'ok'>> {
    const built = await buildExample(this.#calls, this.#backend, this.#options);
    const { vm } = built;
    this.#describe(built);
    const script = exampleScript(this.#platform, vm.vcpus.length);
    for (const { fd } of vm.vcpus) setGuestScript(this.#host.guests, this.#task, fd, script);
    const end = await this.#runVcpus(vm);
    this.tell('host', end.text, true);
    const measurement = this.#measurement(built);
    await vm.close();
    return { measurement, console: this.#console, looks: this.#looks, end };
  }

  readonly #traced = (line: string): void => this.tell('call', line);

  #describe({ vm, predicted }: ExampleVm): void {
    const bytes = vm.slots.reduce((sum, { start, end }) => sum + end - start, 0);
    const taken = privateBytes(vm);
    const vcpus = `${vm.vcpus.length} vCPU${vm.vcpus.length === 1 ? '' : 's'}`;
    const filled = taken === 0 ? '' : `, ${formatBytes(taken)} of it filled before the start`;
    this.tell('host', `built a VM with ${vcpus} and ${formatBytes(bytes)} of memory${filled}`);
    if (predicted !== null) this.tell('host', `expects the ${predicted.name} ${predicted.digits}`, true);
  }

  /** The other vCPUs first: they wait while the first one switches the VM off. */
  async #runVcpus(vm: GuestVm): Promise<VcpuEnd> {
    const cpus = onlineCpus(this.#host.kernel.cpus);
    const serial = new SerialPort((line) => {
      this.#console.push(line);
      this.tell('guest', line);
    });
    const steps: PortDevice = {
      start: STEP_PORT,
      ports: 1,
      in: () => 0,
      out: (_port, value) => {
        this.#step = value;
        return 'stop';
      },
    };
    const ports = [serial, POWER_SWITCH, steps];
    let end: VcpuEnd | null = null;
    for (const vcpu of [...vm.vcpus].reverse()) {
      const thread = this.#task.thread(cpus[vcpu.index % cpus.length]!.index);
      const calls =
        this.#calls instanceof TracedSystemCalls
          ? new TracedSystemCalls(thread, this.#traced, this.#calls)
          : thread;
      do {
        end = await runVcpu(vm, vcpu, { ports, calls });
        if (end.kind === 'stopped') await this.#look(vm);
      } while (end.kind === 'stopped' && this.#step !== EXAMPLE_STEPS.waiting);
      if (end.kind !== 'stopped') break;
    }
    serial.flush();
    return end!;
  }

  async #look(vm: GuestVm): Promise<void> {
    if (this.#step === EXAMPLE_STEPS.secretWritten) await this.#lookAtSecret(vm);
    if (this.#step === EXAMPLE_STEPS.pageShared) await this.#answer(vm);
    if (this.#step === EXAMPLE_STEPS.pagePrivate) {
      this.#looks.again = await this.#lookThrough(vm, EXAMPLE_PAGES.shared, EXAMPLE_TEXTS.again.length);
    }
  }

  async #lookAtSecret(vm: GuestVm): Promise<void> {
    const { secret } = EXAMPLE_PAGES;
    const { length } = EXAMPLE_TEXTS.secret;
    this.tell('host', `looks for the secret at ${addressesOf(this.#task, vm, secret)}`, true);
    const looks = [await this.#lookThrough(vm, secret, length)];
    if (vm.slots[0]!.backing === 'split') looks.push(this.#told(await lookAtFile(vm, secret, length)));
    const physical = await lookAtPhysical(this.#task, vm, secret, length);
    if (physical !== null) looks.push(this.#told(physical));
    const write = this.#platform.hostStoresFault === true ? await tryStore(this.#task, vm, secret) : null;
    if (write !== null) looks.push(this.#told(write));
    this.#looks.secret = looks;
  }

  /** Reads the shared page, and answers in it. */
  async #answer(vm: GuestVm): Promise<void> {
    const { shared } = EXAMPLE_PAGES;
    this.#looks.shared = await this.#lookThrough(vm, shared, EXAMPLE_TEXTS.greeting.length);
    await this.#calls.store(userAddressOf(vm, shared), new TextEncoder().encode(EXAMPLE_TEXTS.answer));
  }

  async #lookThrough(vm: GuestVm, gpa: number, length: number): Promise<Look> {
    return this.#told(await lookAtMemory(vm, gpa, length), hex(gpa));
  }

  #told(look: Look, where = ''): Look {
    const ways = {
      memory: `user space reads its mapping of ${where}`,
      guest_memfd: 'user space maps the guest_memfd',
      physical: 'the kernel reads the physical page',
      store: 'the kernel writes to it',
    };
    this.tell('host', `${ways[look.how]}: ${look.result}`, look.how === 'guest_memfd');
    return look;
  }

  #measurement({ vm, predicted }: ExampleVm): VmExample['measurement'] {
    if (predicted === null) return null;
    const measured =
      predicted.name === 'MRTD' ? mrtdIn(this.#console) : launchDigestOf(this.#host, this.#task, vm.fd);
    const isEqual = measured === predicted.digits;
    const verdict = isEqual ? 'is the one computed beforehand' : `is another: ${measured ?? 'unknown'}`;
    this.tell('host', `the ${predicted.name} ${verdict}`);
    return { name: predicted.name, predicted: predicted.digits, measured };
  }
}

/** What the guest printed of its report. */
function mrtdIn(lines: readonly string[]): string | null {
  for (const line of lines) {
    const digits = /^measured as ([0-9a-f]{96})$/.exec(line)?.[1];
    if (digits !== undefined) return digits;
  }
  return null;
}
