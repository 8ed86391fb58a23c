/** Changes that make a failing host pass: each candidate is tried by predicting again. */
import { formatBytes } from '../../abi/format-bytes.ts';
import { RELEASES } from '../../module/releases.ts';
import type { Survey } from '../../survey/survey.ts';
import { leaveOut, memmapOption, rangesToLeaveOut } from './leave-out.ts';
import type { PlanOptions, Remedy } from './plan.ts';
import { type Prediction, predict } from './predict.ts';

interface Candidate {
  readonly change: string;
  readonly survey: Survey;
  readonly options: PlanOptions;
  /** Added to the effect: what the change costs besides PAMT. */
  readonly cost?: string;
}

/** KeyIDs a BIOS gives TDX in its default split. */
const DEFAULT_KEYIDS = { mktme: 63, tdx: 64 };

/** Options that leave CPUs down. */
const CPU_LIMITS = /(?<!\S)(?:maxcpus=\S*|nr_cpus=\S*|nosmp)(?!\S)/g;

/** Longest memmap= option worth proposing: half of a kernel command line. */
const MAX_MEMMAP_LENGTH = 1024;

/** @internal */
export function findRemedies(survey: Survey, options: PlanOptions, failed: Prediction): readonly Remedy[] {
  return candidates(survey, options, failed).flatMap((candidate): Remedy[] => {
    const outcome = predict(candidate.survey, candidate.options);
    if (outcome.failure !== null) return [];
    return [{ change: candidate.change, effect: effectOf(outcome, candidate.cost) }];
  });
}

function effectOf(outcome: Prediction, cost: string | undefined): string {
  const most = Math.max(0, ...outcome.tdmrs.map((tdmr) => tdmr.reserved.length));
  const areas = `at most ${most} of ${outcome.limits.maxReservedPerTdmr} reserved areas in a TDMR`;
  const count = outcome.tdmrs.length;
  const effect = `initialises with ${count} TDMR${count === 1 ? '' : 's'}, ${areas}`;
  return cost === undefined ? effect : `${effect}; ${cost}`;
}

function candidates(survey: Survey, options: PlanOptions, failed: Prediction): readonly Candidate[] {
  const { machine } = survey;
  const found: Candidate[] = [];
  const add = (change: string, changes: Partial<Candidate>): void => {
    found.push({ change, survey, options, ...changes });
  };
  const code = failed.failure?.error.reason.code;
  const keyIdWish = keyIdChange(failed);
  if (keyIdWish !== undefined) {
    const keyIds = { ...DEFAULT_KEYIDS, mktme: machine.keyIds?.mktme ?? DEFAULT_KEYIDS.mktme };
    add(`in the BIOS, ${keyIdWish} (tried: ${keyIds.tdx})`, {
      survey: { ...survey, machine: { ...machine, keyIds } },
    });
  }
  if (code === 'hibernation') {
    add('boot with nohibernate', {
      survey: { ...survey, kernel: { ...survey.kernel, hibernationDisabled: true } },
    });
  }
  const { commandLine = '' } = survey.kernel;
  const cpuLimits = commandLine.match(CPU_LIMITS)?.map((option) => option.trim());
  if (code === 'seamcall-failed' && cpuLimits !== undefined) {
    const kernel = { ...survey.kernel, commandLine: commandLine.replace(CPU_LIMITS, '') };
    add(`boot without ${cpuLimits.join(' ')}: TDX needs every CPU`, { survey: { ...survey, kernel } });
  }
  if (options.holes === 'memblock') {
    add('take holes from CMRs instead of memory blocks (--holes cmr; a kernel that does so)', {
      options: { ...options, holes: 'cmr' },
    });
  }
  const ranges = rangesToLeaveOut(survey, failed);
  const memmap = memmapOption(ranges);
  if (ranges.length > 0 && memmap.length <= MAX_MEMMAP_LENGTH) {
    const lost = ranges.reduce((sum, { start, end }) => sum + end - start, 0);
    const what = ranges.length === 1 ? 'one range' : `${ranges.length} ranges`;
    add(`leave out ${what} of memory, on the kernel command line: ${memmap}`, {
      survey: leaveOut(survey, ranges),
      cost: `${formatBytes(lost)} are lost to the host`,
    });
  }
  if (!options.dynamicPamt && code === 'pamt-allocation') {
    add('use Dynamic PAMT (--dynamic-pamt)', { options: { ...options, dynamicPamt: true } });
  }
  const release = newestThatPasses(survey, options, failed);
  if (release !== undefined) {
    add(`load TDX module ${release} (--module ${release})`, { options: { ...options, module: release } });
  }
  return found;
}

/** What to change about KeyIDs in the BIOS, where the failure is about them. */
function keyIdChange({ failure }: Prediction): string | undefined {
  const reason = failure?.error.reason;
  if (reason?.code === 'tdx-not-enabled-by-bios') return 'enable TME-MT and TDX and give TDX KeyIDs';
  if (reason?.code === 'too-few-keyids') return 'give TDX more KeyIDs';
  const tooMany = String(reason?.data.statusName).startsWith('TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED');
  return tooMany ? 'give TDX fewer KeyIDs' : undefined;
}

/**
 * Another module helps only where the module decides. Named is the newest that passes of the 1.5 line, which every
 * platform here can load; a later line only where that has none.
 */
function newestThatPasses(survey: Survey, options: PlanOptions, failed: Prediction): string | undefined {
  const step = failed.failure?.step;
  if (step !== 'cpus' && step !== 'sysinfo' && step !== 'features') return undefined;
  const passes = (version: string): boolean =>
    version !== failed.release?.version && predict(survey, { ...options, module: version }).failure === null;
  const versions = RELEASES.map((release) => release.version);
  const [line, others] = [versions.filter(isOfLine), versions.filter((version) => !isOfLine(version))];
  return line.findLast(passes) ?? others.findLast(passes);
}

function isOfLine(version: string): boolean {
  return version.startsWith('1.5.');
}
