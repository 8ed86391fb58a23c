/** The host kernel's TDX support. */
export * from './allocator.ts';
export * from './cpu.ts';
export * from './detect.ts';
export * from './dynamic-pamt.ts';
export type { EnabledTdx } from './enable.ts';
export * from './fragment.ts';
export * from './host-kernel.ts';
export * from './hotplug.ts';
export * from './kernel-config.ts';
export * from './keyid-pool.ts';
export * from './log.ts';
export * from './memblock.ts';
export * from './memlist.ts';
export * from './memory-blocks.ts';
export * from './memory-notifier.ts';
export * from './pamt-alloc.ts';
export * from './policy.ts';
export * from './reserved-areas.ts';
export * from './scheduling.ts';
export * from './seamcall.ts';
export * from './seamldr.ts';
export * from './stages.ts';
export * from './sysfs.ts';
export { knobNamed, parseKnob } from './sysfs-policy.ts';
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
export * from './tdmr.ts';
export * from './vmx.ts';
