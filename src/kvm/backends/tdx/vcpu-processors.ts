/** Which vCPU belongs to which processor (Linux host rules 2.6): one that moves is flushed where it was. */
import { TDH } from '../../../abi/leaves.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import type { Cpu } from '../../../kernel/cpu.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import { bugOn, tdCall } from './td-call.ts';
import type { TdxVcpu } from './tdx-vcpu.ts';

/** @internal */
export class VcpuProcessors {
  readonly #kernel: HostKernel;
  readonly #vcpus = new Map<number, Set<TdxVcpu>>();

  constructor(kernel: HostKernel) {
    this.#kernel = kernel;
    kernel.onCpuOffline((cpu) => this.#goesOffline(cpu));
  }

  /** The vCPU is about to run, or to be set up, on processor `index`. Without a KeyID it belongs nowhere. */
  load(vcpu: TdxVcpu, index: number): void {
    if (vcpu.processor === index || !vcpu.td.hasKeyId) return;
    this.flush(vcpu);
    vcpu.processor = index;
    const here = this.#vcpus.get(index) ?? new Set();
    this.#vcpus.set(index, here.add(vcpu));
  }

  /** TDH.VP.FLUSH on the processor the vCPU belongs to. The VM is broken when the module refuses. */
  flush(vcpu: TdxVcpu): void {
    const { processor } = vcpu;
    if (processor === -1) return;
    this.#vcpus.get(processor)!.delete(vcpu);
    vcpu.processor = -1;
    if (!vcpu.initialized) return;
    const status = tdCall(this.#kernel.cpus[processor]!, TDH.vpFlush, vcpu.tdvpr);
    if (status !== STATUS.TDX_SUCCESS && status !== STATUS.TDX_VCPU_NOT_ASSOCIATED) {
      bugOn(vcpu.td.vm, TDH.vpFlush, status, { vcpu: vcpu.vcpu.id });
    }
  }

  #goesOffline({ index }: Cpu): void {
    for (const vcpu of this.#vcpus.get(index) ?? []) this.flush(vcpu);
  }
}
