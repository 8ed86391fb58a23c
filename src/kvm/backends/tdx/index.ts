/** Trust domains in KVM. */
export type { LeakedPage } from './module-pages.ts';
export { TdxBackend } from './tdx-backend.ts';
export { TdxHost } from './tdx-host.ts';
export { DEFAULT_TDX_OPTIONS, type TdxOptions } from './tdx-options.ts';
export { TdxTechnology } from './technology.ts';
export type { TdState } from './trust-domain.ts';
export { KVM_TDX_TERMINATE_VM } from './vm-commands.ts';
