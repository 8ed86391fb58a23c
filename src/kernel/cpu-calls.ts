/** CPUs that go online and offline, and that are plugged in. */
import { KernelError } from '../abi/errno.ts';
import { Cpu, onlineCpus } from './cpu.ts';
import type { HostKernel } from './host-kernel.ts';
import type { TdxEnabler } from './tdx-enabler.ts';
import { prepareVmx } from './vmx.ts';

/** @internal */
export class CpuCalls {
  readonly #kernel: HostKernel;
  readonly #tdx: TdxEnabler;
  readonly #offlineHooks: ((cpu: Cpu) => void)[] = [];

  constructor(kernel: HostKernel, tdx: TdxEnabler) {
    this.#kernel = kernel;
    this.#tdx = tdx;
  }

  /** Throws EINVAL for a CPU that is online or absent, or what TDX's online callback throws. */
  online(index: number): void {
    const cpu = this.#cpu(index, false);
    this.#tdx.cpuState.online(cpu);
    cpu.online = true;
  }

  /** Throws EINVAL for a CPU that is offline or absent, EBUSY where TDX or the kernel needs it. */
  offline(index: number): void {
    const { cpus } = this.#kernel;
    const cpu = this.#cpu(index, true);
    if (onlineCpus(cpus).length === 1) {
      throw new KernelError('EBUSY', 'last-cpu', `CPU ${index} is the last one online`, { cpu: index });
    }
    for (const hook of this.#offlineHooks) hook(cpu);
    this.#tdx.cpuState.offline(cpu, cpus, this.#tdx.keyIds);
    cpu.online = false;
  }

  onOffline(hook: (cpu: Cpu) => void): void {
    this.#offlineHooks.push(hook);
  }

  /** ACPI tells of a processor that was plugged in. */
  added(lp: Cpu['lp']): void {
    const { policy, log, allocator, cpus } = this.#kernel;
    if (policy.cpuHotAdd === 'refuse' && this.#tdx.state === 'initialized') {
      log.err('CPU hot-add refused: the module initialises no more processors', 'cpu-add-refused');
      return;
    }
    const cpu = new Cpu(lp);
    prepareVmx(cpu, allocator);
    cpus.push(cpu);
    log.info(`CPU ${cpu.index} hot-added, offline`, 'cpu-add');
  }

  #cpu(index: number, online: boolean): Cpu {
    const cpu = this.#kernel.cpus[index];
    if (cpu?.online === online) return cpu;
    const state = cpu === undefined ? 'not there' : cpu.online ? 'online already' : 'offline already';
    throw new KernelError('EINVAL', 'cpu-state', `CPU ${index} is ${state}`, { cpu: index });
  }
}
