/** Files about the module, P-SEAMLDR and KeyIDs. */

import { hex } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { hasFeature } from '../abi/features.ts';
import type { SeamldrInfo } from '../abi/seamldr-info.ts';
import { onlineCpus } from './cpu.ts';
import type { HostKernel } from './host-kernel.ts';
import { readSeamldrInfo } from './seamldr.ts';
import { file, type SysfsDirectory, type SysfsFile } from './sysfs-tree.ts';
import { formatModuleVersion, type TdxSysinfo } from './sysinfo.ts';

/**
 * `/sys/devices/faux/tdx_host` as Linux has it: the version fails with ENXIO before initialisation; the files
 * about P-SEAMLDR exist only where the module can be updated at run time.
 * @internal
 */
export function tdxHostFiles(kernel: HostKernel): SysfsDirectory {
  const version = file(() => formatModuleVersion(initialised(kernel).version));
  const { sysinfo, detection } = kernel;
  const updatable =
    sysinfo !== null &&
    hasFeature(sysinfo.features.features0, 'TD_PRESERVING') &&
    detection?.errata.seamretInvalidatesVmcs === false;
  if (!updatable) return { version };
  const loader = seamldrFiles(kernel);
  return { version, seamldr_version: loader.version, num_remaining_updates: loader.remaining_updates };
}

/**
 * P-SEAMLDR, asked at every read: mode 0400, since each costs a SEAMCALL that serialises the machine.
 * @internal
 */
export function seamldrFiles(
  kernel: HostKernel,
): Record<'version' | 'build_date' | 'remaining_updates' | 'module_ready', SysfsFile> {
  const ask = (): SeamldrInfo => readSeamldrInfo(onlineCpus(kernel.cpus)[0]!, kernel.allocator);
  return {
    version: file(() => formatModuleVersion(ask()), 0o400),
    build_date: file(() => ask().buildDate, 0o400),
    remaining_updates: file(() => ask().remainingUpdates, 0o400),
    module_ready: file(() => (ask().seamReady ? 1 : 0), 0o400),
  };
}

function initialised(kernel: HostKernel): TdxSysinfo {
  if (kernel.state === 'initialized' && kernel.sysinfo !== null) return kernel.sysinfo;
  throw new KernelError('ENXIO', 'not-initialised', 'the TDX module is not initialised', {
    state: kernel.state,
  });
}

/** @internal */
export function keyIdFiles(kernel: HostKernel): SysfsDirectory {
  const { detection, keyIds } = kernel;
  if (detection === null) return {};
  const { start, count } = detection.keyIds;
  return {
    range: file(() => `[${start}, ${start + count})`),
    total: file(() => count),
    global: file(() => detection.globalKeyId),
    guest_total: file(() => keyIds.capacity),
    in_use: file(() => keyIds.current),
    free: file(() => keyIds.capacity - keyIds.current),
  };
}

/** @internal */
export function moduleFiles({ sysinfo }: HostKernel): SysfsDirectory {
  if (sysinfo === null) return {};
  const { version, features, tdmr, tdCtrl, tdConf } = sysinfo;
  return {
    version: file(() => formatModuleVersion(version)),
    build_date: file(() => version.buildDate),
    build_num: file(() => version.buildNumber),
    features0: file(() => hex(features.features0)),
    max_tdmrs: file(() => tdmr.maxTdmrs),
    max_reserved_per_tdmr: file(() => tdmr.maxReservedPerTdmr),
    pamt_entry_size: file(() => tdmr.pamt4kEntrySize),
    tdr_base_size: file(() => tdCtrl.tdrBaseSize),
    tdcs_base_size: file(() => tdCtrl.tdcsBaseSize),
    tdvps_base_size: file(() => tdCtrl.tdvpsBaseSize),
    max_vcpus_per_td: file(() => tdConf.maxVcpusPerTd),
    attributes_fixed0: file(() => hex(tdConf.attributesFixed0)),
    attributes_fixed1: file(() => hex(tdConf.attributesFixed1)),
    xfam_fixed0: file(() => hex(tdConf.xfamFixed0)),
    xfam_fixed1: file(() => hex(tdConf.xfamFixed1)),
  };
}
