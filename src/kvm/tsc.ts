/** The frequency of the TSC that guests see, in kHz: of a VM for vCPUs to come, and of a vCPU. */
import { KernelError } from '../abi/errno.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import { argumentValue } from './argument.ts';
import type { Vcpu } from './vcpu.ts';
import type { Vm } from './vm.ts';

const TSC_LEAF = 0x15;
/** Requests are below it, whatever ratio to the host's frequency the processor could scale to. */
const TSC_KHZ_END = 0x7fff_ffff;

/** The host's: CPUID 0x15 has the ratio to the crystal clock and the clock's frequency. @internal */
export function hostTscKhz(lp: LogicalProcessor): number {
  const [denominator, numerator, crystalHz] = lp.cpuid(TSC_LEAF);
  return (crystalHz * numerator) / (denominator || 1) / 1000;
}

/** KVM_SET_TSC_KHZ of a VM; 0 is the host's. Throws EINVAL. @internal */
export function setVmTscKhz(vm: Vm, arg: UserArg): Promise<number> {
  return vm.lock.run(() => {
    const khz = requestedKhz(vm, arg);
    if (vm.createdVcpus > 0) {
      throw invalid('tsc-khz-after-vcpus', 'the TSC frequency of a VM is set before its vCPUs', { khz });
    }
    vm.tscKhz = khz;
    return 0;
  });
}

/** KVM_SET_TSC_KHZ of a vCPU; 0 is the host's. Throws EINVAL, always for a TD's, whose TSC is the module's. @internal */
export async function setVcpuTscKhz(vcpu: Vcpu, arg: UserArg): Promise<number> {
  if (vcpu.vm.backend.protectsTsc === true) {
    throw invalid('tsc-protected', 'the TSC of such a vCPU has the frequency of its VM', {});
  }
  vcpu.tscKhz = requestedKhz(vcpu.vm, arg);
  return 0;
}

function requestedKhz({ kernel }: Vm, arg: UserArg): number {
  const khz = argumentValue(arg) % 2 ** 32;
  if (khz >= TSC_KHZ_END) throw invalid('tsc-khz', `the TSC has fewer than ${TSC_KHZ_END} kHz`, { khz });
  return khz === 0 ? hostTscKhz(kernel.cpus[0]!.lp) : khz;
}

function invalid(code: string, text: string, data: Record<string, unknown>): KernelError {
  return new KernelError('EINVAL', code, text, data);
}
