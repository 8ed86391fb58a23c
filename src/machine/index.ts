/** The hardware: a machine made of a description. */
export * from './clock.ts';
export {
  type CpuModel,
  type E820Entry,
  type E820Type,
  type KeyIdPartition,
  keyIdBits,
  MAX_CMRS,
  type MachineDescription,
  type MemoryKind,
  type MemoryRange,
  PARTIAL_WRITE_ERRATUM,
  type ProcessorDescription,
  packageShift,
  type SeamLoaderDescription,
  type SratEntry,
} from './description.ts';
export * from './exceptions.ts';
export * from './guest-code.ts';
export * from './hypervisor-image.ts';
export * from './lp.ts';
export * from './machine.ts';
export { isMapped, type MemoryOptions, type PageMapping, PhysicalMemory, type StoreKind } from './memory.ts';
export * from './native-platform.ts';
export * from './package.ts';
export * from './random.ts';
export * from './seam.ts';
