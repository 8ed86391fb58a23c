/** Diagnoses a machine: which stages of a TDX host it has come through, what fails, why, and what to do. */
import type { Collection } from '../../survey/live/collection.ts';
import { HostFacts } from '../../survey/live/host-facts.ts';
import { type Finding, notApplicable, unknown } from './finding.ts';
import { type HostKind, kindOfHost } from './host-kind.ts';
import { type PlanOutlook, planOutlook } from './plan-outlook.ts';
import type { Stage, StageId } from './stage.ts';
import { FIRMWARE_STAGES } from './stages/firmware.ts';
import { KERNEL_STAGES } from './stages/kernel.ts';
import { KVM_STAGES } from './stages/kvm.ts';
import { MODULE_STAGES, moduleName } from './stages/module.ts';
import { USE_STAGES } from './stages/use.ts';

/** The stages in the order in which a host comes up. @internal */
export const STAGES: readonly Stage[] = [
  ...FIRMWARE_STAGES,
  ...KERNEL_STAGES,
  ...MODULE_STAGES,
  ...KVM_STAGES,
  ...USE_STAGES,
];

/** @public */
export interface StageReport extends Omit<Finding, 'follows'> {
  readonly id: StageId;
  readonly title: string;
}

/**
 * `ready`: TDs can be started. `not-ready`: a TDX host that a failure holds back. `cannot-tell`: too little could be
 * read. `no-tdx`: the machine cannot host TDs, by its nature. `td`: it is a TD itself.
 * @public
 */
export type DoctorVerdict = 'ready' | 'not-ready' | 'cannot-tell' | 'no-tdx' | 'td';

/** @public */
export interface DoctorReport {
  readonly verdict: DoctorVerdict;
  /** The verdict in one sentence. */
  readonly says: string;
  readonly stages: readonly StageReport[];
  /** What `plan` makes of the memory map, where the sources show one. */
  readonly plan?: PlanOutlook;
}

/** The diagnosis of what was read of a machine. Never throws for what is in it. @public */
export async function diagnose(collection: Collection): Promise<DoctorReport> {
  const facts = new HostFacts(collection);
  const hostKind = kindOfHost(facts);
  const { kind, says } = hostKind;
  if (kind === 'no-tdx' || kind === 'td') {
    const [first, ...others] = STAGES;
    const looked = first!.judge(facts).looked;
    const why = kind === 'td' ? 'this is a TD, not a host' : 'this machine cannot host TDs';
    const stages = [
      report(first!, notApplicable(why, looked)),
      ...others.map((stage) => report(stage, notApplicable(why))),
    ];
    return { verdict: kind, says, stages };
  }
  const stages = judgeStages(facts);
  const outlook = await planOutlook(facts);
  return {
    ...verdictOf(stages, facts, hostKind),
    stages,
    ...(outlook === undefined ? {} : { plan: outlook }),
  };
}

function report({ id, title }: Stage, { follows: _, ...finding }: Finding): StageReport {
  return { id, title, ...finding };
}

/** A stage that cannot pass before another one says so instead of repeating the other's failure. */
function judgeStages(facts: HostFacts): readonly StageReport[] {
  const done = new Map<StageId, StageReport>();
  /** Title of the stage at which the way to this one ends. */
  const blockedAt = new Map<StageId, string>();
  for (const stage of STAGES) {
    const finding = stage.judge(facts);
    const blocker = stage.after.map((id) => blockedAt.get(id)).find((title) => title !== undefined);
    const open = stage.after.map((id) => done.get(id)!).find(({ status }) => status === 'unknown');
    const ownFinding = finding.follows !== true && finding.status !== 'unknown';
    const settled =
      blocker !== undefined && !ownFinding
        ? notApplicable(`waits for: ${blocker}`)
        : open !== undefined && finding.follows === true
          ? unknown(`depends on: ${open.title}`, open.toKnow!, [])
          : finding;
    done.set(stage.id, report(stage, settled));
    if (settled.status === 'fail') blockedAt.set(stage.id, stage.title);
    if (settled.status === 'not-applicable') blockedAt.set(stage.id, blocker ?? stage.title);
  }
  return [...done.values()];
}

function verdictOf(
  stages: readonly StageReport[],
  facts: HostFacts,
  kind: HostKind,
): Pick<DoctorReport, 'verdict' | 'says'> {
  const failures = stages.filter(({ status }) => status === 'fail');
  const [first, ...others] = failures;
  if (first !== undefined) {
    const more = others.length === 0 ? '' : ` (and ${others.length} more)`;
    return { verdict: 'not-ready', says: `This machine is not ready for TDs: ${first.says}${more}.` };
  }
  const finding = (id: StageId): StageReport => stages.find((stage) => stage.id === id)!;
  if (finding('initialisation').status === 'pass' && finding('kvm').status === 'pass') {
    const name = moduleName(facts);
    const [keyIds] = [finding('keyids')].filter(({ status }) => status === 'pass');
    const parts = [name === undefined ? undefined : `TDX module ${name}`, keyIds?.says];
    const known = parts.filter((part) => part !== undefined).join(', ');
    return { verdict: 'ready', says: `This host is ready for TDs${known === '' ? '' : `: ${known}`}.` };
  }
  const open = stages.find(({ status }) => status === 'unknown');
  const why =
    kind.kind === 'unreadable' ? kind.says : `It cannot be told ${open?.says ?? 'whether it is ready'}.`;
  return { verdict: 'cannot-tell', says: why };
}
