/** Whole hosts: put together, planned, explained, replayed, broken on purpose. */
export { type DoctorReport, type DoctorVerdict, diagnose, type StageReport } from './doctor/diagnose.ts';
export type { Looked, StageStatus } from './doctor/finding.ts';
export type { PlanOutlook } from './doctor/plan-outlook.ts';
export type { StageId } from './doctor/stage.ts';
export * from './explain/explain.ts';
export * from './explain/explanation.ts';
export * from './fail-at.ts';
export * from './guest/flow.ts';
export * from './guest/pkvm-guest.ts';
export * from './guest/program.ts';
export * from './guest/programs.ts';
export * from './guest/scripted-guests.ts';
export * from './guest/snp-guest.ts';
export * from './guest/snp-kernel.ts';
export * from './guest/td-kernel.ts';
export * from './host.ts';
export * from './inspect/inspect-host.ts';
export type { KeyIdInspection } from './inspect/key-ids.ts';
export type { OwnedPages, PageCount, PageTypeName, TdmrPages } from './inspect/pages.ts';
export type { SeptRun, SeptSize } from './inspect/sept-tree.ts';
export type { TdConfiguration, TdInspection, VcpuInspection } from './inspect/tds.ts';
export * from './kvm-host.ts';
export * from './machines/genoa.ts';
export * from './modules/describe-release.ts';
export * from './modules/diff-releases.ts';
export type { Watched } from './ownership/host-look.ts';
export { OWNERSHIP_INVARIANTS, OwnershipError, OwnershipWatch } from './ownership/ownership-watch.ts';
export * from './plan/plan.ts';
export * from './plan/plan-host.ts';
export {
  type FileReplay,
  type LocatedMismatch,
  type ReplayOptions,
  type ReplayResult,
  replayFiles,
  replayVectors,
} from './replay/replay.ts';
export * from './schedule/explore.ts';
export * from './schedule/scheduler.ts';
export { isSavedHost } from './snapshot/container.ts';
export * from './snapshot/save-host.ts';
export * from './td/lab-td.ts';
export * from './td/run-program.ts';
export * from './trace.ts';
export * from './vm/account.ts';
export * from './vm/build-example.ts';
export * from './vm/example-guest.ts';
export * from './vm/launch-digest.ts';
export * from './vm/look.ts';
export * from './vm/platforms.ts';
export * from './vm/vm-example.ts';
export * from './vm/vm-host.ts';
