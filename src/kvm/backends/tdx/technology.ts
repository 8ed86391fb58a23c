/** What KVM needs of a host to offer TDs, found when it loads (Linux host rules 2.1). */
import { KernelError, type Reason } from '../../../abi/errno.ts';
import { hasFeature } from '../../../abi/features.ts';
import { KVM_VM_TYPE } from '../../../abi/kvm/vm-types.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import type { TdxSysinfo } from '../../../kernel/sysinfo.ts';
import type { LogicalProcessor } from '../../../machine/lp.ts';
import type { Backend, Technology } from '../../backend.ts';
import type { Vm } from '../../vm.ts';
import { supportedAttributes, supportedXfam } from './capabilities.ts';
import { KVM_PREFIX } from './td-call.ts';
import { TdxBackend } from './tdx-backend.ts';
import { TdxHost } from './tdx-host.ts';
import { DEFAULT_TDX_OPTIONS, type TdxOptions } from './tdx-options.ts';

/** @public */
export class TdxTechnology implements Technology {
  readonly name = 'tdx';
  readonly vmType = KVM_VM_TYPE.TDX;
  readonly #options: TdxOptions;
  #host: TdxHost | null = null;

  constructor(options: Partial<TdxOptions> = {}) {
    this.#options = { ...DEFAULT_TDX_OPTIONS, ...options };
  }

  /** What all TDs share: KeyIDs, leaked pages; null where TDs are not offered. */
  get host(): TdxHost | null {
    return this.#host;
  }

  /** Returns why there are no TDs while KVM goes on. Throws EINVAL where kvm_intel itself does not load. */
  async probe(kernel: HostKernel): Promise<Reason | null> {
    const [lp] = kernel.machine.lps as [LogicalProcessor];
    const missing = REQUIREMENTS.find(({ isMet }) => !isMet(kernel, lp));
    if (missing !== undefined) {
      kernel.log.write('err', KVM_PREFIX, missing.text, missing.code);
      return { code: missing.code, text: missing.text, data: {} };
    }
    let sysinfo: TdxSysinfo;
    try {
      sysinfo = await kernel.getTdx();
    } catch (error) {
      if (error instanceof KernelError) return error.reason;
      throw error;
    }
    checkModule(kernel, sysinfo, lp);
    this.#host = new TdxHost(kernel, sysinfo, this.#options);
    return null;
  }

  create = (vm: Vm): Backend => {
    if (this.#host === null) throw new Error('TDs are not offered on this host');
    return new TdxBackend(vm, this.#host);
  };
}

interface Requirement {
  readonly code: string;
  readonly text: string;
  readonly isMet: (kernel: HostKernel, lp: LogicalProcessor) => boolean;
}

/** IA32_VMX_EPT_VPID_CAP: four levels, accessed and dirty flags. */
const EPT_VPID_CAP_MSR = 0x48c;
const EPT_4_LEVELS = 1n << 6n;
const EPT_ACCESSED_DIRTY = 1n << 21n;
/** Allowed-1 halves of the controls: "activate secondary", virtual interrupt delivery, posted interrupts. */
const PROCBASED_CTLS2_MSR = 0x48b;
const TRUE_PINBASED_CTLS_MSR = 0x48d;
const VIRTUAL_INTERRUPTS = 1n << (32n + 9n);
const POSTED_INTERRUPTS = 1n << (32n + 7n);
/** CPUID(1), ECX bit 26: XSAVE, which the kernel turns on as OSXSAVE. */
const XSAVE = 1 << 26;

/** In the order in which KVM asks. */
const REQUIREMENTS: readonly Requirement[] = [
  {
    code: 'ept-required',
    text: 'EPT is required for TDX',
    isMet: (_kernel, lp) => (lp.rdmsr(EPT_VPID_CAP_MSR) & EPT_4_LEVELS) !== 0n,
  },
  {
    code: 'ept-ad-required',
    text: 'TDP MMU, MMIO caching and EPT A/D bits are required for TDX',
    isMet: (_kernel, lp) => (lp.rdmsr(EPT_VPID_CAP_MSR) & EPT_ACCESSED_DIRTY) !== 0n,
  },
  {
    code: 'apicv-required',
    text: 'APICv is required for TDX',
    isMet: (_kernel, lp) =>
      (lp.rdmsr(PROCBASED_CTLS2_MSR) & VIRTUAL_INTERRUPTS) !== 0n &&
      (lp.rdmsr(TRUE_PINBASED_CTLS_MSR) & POSTED_INTERRUPTS) !== 0n,
  },
  {
    code: 'osxsave-required',
    text: 'OSXSAVE is required for TDX',
    isMet: (_kernel, lp) => (lp.cpuid(1)[2] & XSAVE) !== 0,
  },
  {
    code: 'tdx-unsupported',
    text: 'TDX is not supported by the host platform',
    isMet: (kernel) => kernel.detection !== null,
  },
];

function checkModule(kernel: HostKernel, sysinfo: TdxSysinfo, lp: LogicalProcessor): void {
  if (supportedAttributes(sysinfo) === 0n || supportedXfam(sysinfo, lp) === 0n) {
    throw refused(
      'tdx-no-attributes',
      'the module demands attributes or extended features that KVM does not have',
    );
  }
  if (!hasFeature(sysinfo.features.features0, 'TOPOLOGY_ENUM')) {
    throw refused('tdx-no-topology', 'the module cannot enumerate a TD’s topology (TDX_FEATURES0 bit 20)');
  }
  const { maxVcpusPerTd } = sysinfo.tdConf;
  const present = kernel.cpus.length;
  if (maxVcpusPerTd >= present) return;
  const text = `MAX_VCPU_PER_TD (${maxVcpusPerTd}) is smaller than the number of logical CPUs (${present})`;
  kernel.log.write('err', KVM_PREFIX, `Disable TDX: ${text}`, 'tdx-max-vcpus');
  throw refused('tdx-max-vcpus', text);
}

function refused(code: string, text: string): KernelError {
  return new KernelError('EINVAL', code, text);
}
