/** What all TDs of a host share in KVM: the module's description, the KeyID resource, a lock, pages, processors. */
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import { MiscResource } from '../../../kernel/misc-cgroup.ts';
import { PamtPages } from '../../../kernel/pamt-pages.ts';
import { SleepLock } from '../../../kernel/process/lock.ts';
import type { TdxSysinfo } from '../../../kernel/sysinfo.ts';
import { ModulePages } from './module-pages.ts';
import type { TdxOptions } from './tdx-options.ts';
import { VcpuProcessors } from './vcpu-processors.ts';

/** @public */
export class TdxHost {
  readonly kernel: HostKernel;
  readonly sysinfo: TdxSysinfo;
  readonly options: TdxOptions;
  /** The misc controller's resource "tdx": one per KeyID. */
  readonly keyIdResource = new MiscResource();
  /** Held around leaves that lock the whole module, which would find it busy otherwise. */
  readonly globalLock = new SleepLock();
  readonly pages: ModulePages;
  readonly processors: VcpuProcessors;

  constructor(kernel: HostKernel, sysinfo: TdxSysinfo, options: TdxOptions) {
    this.kernel = kernel;
    this.sysinfo = sysinfo;
    this.options = options;
    this.keyIdResource.capacity = kernel.keyIds.capacity;
    this.pages = new ModulePages(
      kernel,
      kernel.enabled?.dynamicPamt === true ? new PamtPages(kernel.tdMemory) : null,
    );
    this.processors = new VcpuProcessors(kernel);
  }
}
