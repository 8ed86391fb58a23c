/** The TDX module and P-SEAMLDR. */
export * from './cpuid-config.ts';
export * from './guest/guest-runner.ts';
export * from './guest/running-vcpu.ts';
export type { GuestOutcome, VmExit } from './guest/vm-exit.ts';
export * from './load-module.ts';
export { type ModuleImage, moduleImage } from './module-image.ts';
export * from './releases.ts';
export * from './seamldr.ts';
export * from './tdmr-checks.ts';
export * from './tdx-module.ts';
