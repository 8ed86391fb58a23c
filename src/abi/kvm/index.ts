/** The words of KVM's system calls: requests, capabilities, structures, exits. */
export * from './capabilities.ts';
export * from './exits.ts';
export * from './ioctl.ts';
export * from './sev.ts';
export * from './structs.ts';
export * from './tdx.ts';
export * from './vm-types.ts';
