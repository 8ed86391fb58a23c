/** A hypervisor below the host: pKVM, which keeps who owns and who borrows every page. */
export { type GuestLeaf, GuestStage2 } from './guest-stage2.ts';
export { HostStage2 } from './host-stage2.ts';
export * from './ownership.ts';
export * from './page-state.ts';
export * from './pkvm-hypervisor.ts';
export type { HypVcpu, HypVm, PendingCall } from './vm.ts';
export * from './vm-table.ts';
