/** Whole hosts: put together, planned, explained, replayed, broken on purpose. */
export { type DoctorReport, type DoctorVerdict, diagnose, type StageReport } from './doctor/diagnose.ts';
export type { Looked, StageStatus } from './doctor/finding.ts';
export type { PlanOutlook } from './doctor/plan-outlook.ts';
export type { StageId } from './doctor/stage.ts';
export * from './explain/explain.ts';
export * from './explain/explanation.ts';
export { exploreInterleavings, type Interleavings } from './explore/exhaustive/explore-interleavings.ts';
export type { BrokenInvariant, PathStep, SearchOptions, SearchResult } from './explore/exhaustive/search.ts';
export { type Exploration, type ExploreOptions, exploreScenario } from './explore/seeds/explore-scenario.ts';
export { type Failure, findFailure, firstFailure } from './explore/seeds/failure.ts';
export { replayFile } from './explore/seeds/scenario-file.ts';
export { type ShrunkFailure, shrinkFailure } from './explore/seeds/shrink-failure.ts';
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
export { comparisonSvg } from './scenario/chart/comparison-svg.ts';
export * from './scenario/compare.ts';
export type { Counts, Measures } from './scenario/engine/measures.ts';
export { type Outcome, type Result, rootCause } from './scenario/engine/outcome.ts';
export { playEvent } from './scenario/engine/play-event.ts';
export * from './scenario/engine/run-scenario.ts';
export { ScenarioHost } from './scenario/engine/scenario-host.ts';
export { type Judgement, judge } from './scenario/expectations.ts';
export * from './scenario/find-scenario.ts';
export type { ScenarioInvariant, Violation } from './scenario/invariants/invariant.ts';
export { SCENARIO_INVARIANTS } from './scenario/invariants/invariants.ts';
export { promisesNoKill } from './scenario/invariants/promise.ts';
export { EVENT_KINDS, type EventKind, type EventSpec } from './scenario/language/event-schema.ts';
export type { HostSpec } from './scenario/language/host-schema.ts';
export { parseScenario } from './scenario/language/parse-scenario.ts';
export type { ArrivalSpec, Expectation, FaultSpec } from './scenario/language/scenario-schema.ts';
export { formatDuration, parseDuration, parseSize } from './scenario/language/units.ts';
export * from './scenario/policy-sets.ts';
export * from './scenario/scenario.ts';
export * from './scenario/timeline.ts';
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
