/** KVM as it is loaded: its parameters and the kinds of VM that the host can run. */
import type { Reason } from '../abi/errno.ts';
import type { HostKernel } from '../kernel/host-kernel.ts';
import type { Technology } from './backend.ts';
import type { KvmOptions } from './kvm-options.ts';

/** @public */
export class Kvm {
  readonly kernel: HostKernel;
  readonly options: KvmOptions;
  /** Kinds of VM by the argument of KVM_CREATE_VM. */
  readonly technologies: ReadonlyMap<number, Technology>;
  /** Why others are not offered, by the same. */
  readonly unavailable: ReadonlyMap<number, Reason>;

  private constructor(
    kernel: HostKernel,
    options: KvmOptions,
    technologies: ReadonlyMap<number, Technology>,
    unavailable: ReadonlyMap<number, Reason>,
  ) {
    this.kernel = kernel;
    this.options = options;
    this.technologies = technologies;
    this.unavailable = unavailable;
  }

  /** Asks every technology whether the host has what it needs. Throws what makes KVM itself fail to load. */
  static async load(kernel: HostKernel, options: KvmOptions, known: readonly Technology[]): Promise<Kvm> {
    const technologies = new Map<number, Technology>();
    const unavailable = new Map<number, Reason>();
    for (const technology of known) {
      const reason = await technology.probe(kernel);
      if (reason === null) technologies.set(technology.vmType, technology);
      else unavailable.set(technology.vmType, reason);
    }
    return new Kvm(kernel, options, technologies, unavailable);
  }
}
