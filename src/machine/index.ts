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
  type SevDescription,
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
export * from './snp/firmware/commands.ts';
export * from './snp/firmware/launch-digest.ts';
export { type PageState, pageState } from './snp/firmware/page-states.ts';
export { SecureProcessor } from './snp/firmware/secure-processor.ts';
export * from './snp/rmp.ts';
export { PAGE_FAULT, RmpFault, VC_NOT_VALIDATED } from './snp/rmp-checks.ts';
export { RMP_STATUS, type RmpState } from './snp/rmp-instructions.ts';
export { RMP_BOOKKEEPING_BYTES, RMP_ENTRY_BYTES, Snp } from './snp/snp.ts';
export * from './snp/vmsa.ts';
