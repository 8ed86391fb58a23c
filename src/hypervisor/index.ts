/** A hypervisor below the host: pKVM, which keeps who owns and who borrows every page. */
export * from './guest-stage2.ts';
export * from './host-stage2.ts';
export * from './ownership.ts';
export * from './page-state.ts';
export * from './pkvm-hypervisor.ts';
export * from './vm.ts';
export * from './vm-table.ts';
