/** Choices of KVM's TDX code where kernels differ; the defaults are Linux 7.2's (Linux host rules 2). */

/** @public */
export interface TdxOptions {
  /** Private pages of 2 MiB where the file has them (the huge-page series). Default false. */
  readonly hugePages: boolean;
  /** 512 small private pages that lie together become a large one when the last is mapped. Default false. */
  readonly promote: boolean;
  /**
   * What KVM_TDX_INIT_MEM_REGION does with measured regions. `one-pass`: each page is added and then extended, as kernels
   * do since TDX was merged. `two-pass`: all pages of a region are added, then all extended, as the kernels before that
   * did. The two give different MRTDs. Default `one-pass`.
   */
  readonly pageOrder: 'one-pass' | 'two-pass';
  /** An epoch for each small page removed, as Linux 7.2 does it, or one for all that a zap removes from a table. */
  readonly trackPer: 'page' | 'zap';
  /** KVM_TDX_TERMINATE_VM exists (proposed in 2025): a TD gives up its KeyID before its files are closed. Default false. */
  readonly terminateVm: boolean;
}

/** Linux 7.2. @public */
export const DEFAULT_TDX_OPTIONS: TdxOptions = {
  hugePages: false,
  promote: false,
  pageOrder: 'one-pass',
  trackPer: 'page',
  terminateVm: false,
};
