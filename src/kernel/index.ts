/** The host kernel: its TDX support, processes and their system calls. */
export * from './allocation.ts';
export * from './allocator.ts';
export { Balloon } from './balloon.ts';
export * from './cpu.ts';
export * from './detect.ts';
export * from './devices.ts';
export * from './dynamic-pamt.ts';
export type { EnabledTdx } from './enable.ts';
export * from './fragment.ts';
export * from './host-kernel.ts';
export * from './hotplug.ts';
export { checkGoingOnline } from './hotplug-rules.ts';
export * from './kernel-config.ts';
export * from './keyid-pool.ts';
export * from './log.ts';
export { type MemblockRegion, type MemorySource, memblockFromFirmware, mergeMemblock } from './memblock.ts';
export * from './memlist.ts';
export { type MemoryBlock, type MemoryBlockState, memoryBlockSize, usableMemory } from './memory-blocks.ts';
export type { MemoryFailure, MemoryUser } from './memory-failure.ts';
export * from './memory-notifier.ts';
export type { ModuleImageFile } from './module-update.ts';
export type { NodeDistance } from './node-zones.ts';
export * from './page-refs.ts';
export * from './pamt-alloc.ts';
export * from './policy/kernel-policy.ts';
export * from './policy/knob.ts';
export * from './policy/knobs.ts';
export type { KexecOutcome, SleepState } from './power.ts';
export { AddressSpace, type MmuNotifier, USER_END } from './process/address-space.ts';
export { DmaDevice, loadDmaDevice } from './process/dma-device.ts';
export { unknownRequest } from './process/file-calls.ts';
export * from './process/file-mapping.ts';
export * from './process/file-object.ts';
export * from './process/file-table.ts';
export * from './process/lock.ts';
export * from './process/memfd.ts';
export * from './process/memory-area.ts';
export * from './process/mempolicy.ts';
export * from './process/object-counts.ts';
export * from './process/open-file.ts';
export * from './process/pin-user-pages.ts';
export * from './process/process.ts';
export * from './process/shared-policy.ts';
export * from './process/system-calls.ts';
export * from './process/task.ts';
export * from './reserved-areas.ts';
export * from './scheduling.ts';
export * from './seamcall.ts';
export * from './seamldr.ts';
export * from './stages.ts';
export * from './sysfs.ts';
export { knobNamed } from './sysfs-policy.ts';
export { isFile, type SysfsDirectory, type SysfsFile, type SysfsNode } from './sysfs-tree.ts';
export {
  checkFeatures,
  formatModuleVersion,
  listCmrs,
  logSysinfo,
  rbpClobberError,
  readSysinfo,
  type TdxSysinfo,
} from './sysinfo.ts';
export type { TdAdvice } from './td-advice.ts';
export { TdMemory, type TdPageRequest } from './td-memory.ts';
export * from './tdmr.ts';
export type { Capability, NodeCapability, TdxCapability, ZoneCapability } from './tdx-capability.ts';
export type { TdxState } from './tdx-enabler.ts';
export * from './vmx.ts';
export type { PfnRange, ZoneName } from './zone.ts';
