/** What the machine's own kernel reported, beside what the plan says. */
import { type AddressRange, formatRange } from '../../abi/address.ts';
import { ERRNO, type KernelError } from '../../abi/errno.ts';
import { hostLeafName } from '../../abi/leaves.ts';
import { formatStatus } from '../../abi/status.ts';
import type { Observed } from '../../survey/survey.ts';
import type { Comparison, PlannedTdmr } from './plan.ts';

/** The figures of a plan that a log can confirm. @internal */
export interface Comparable {
  readonly privateKeyIds: { readonly start: number; readonly end: number };
  readonly pamtKb: number;
  readonly tdmrs: readonly PlannedTdmr[];
  readonly failure: { readonly step: string; readonly error: KernelError } | null;
}

/** One comparison for every fact that was observed. @internal */
export function compareWithObserved(plan: Comparable, observed: Observed): readonly Comparison[] {
  const comparisons: Comparison[] = [];
  const compare = (what: string, planned: string, seen: string): void => {
    comparisons.push({ what, planned, observed: seen, agrees: planned === seen });
  };
  const { keyIds, pamtKb, tdmrs, initialized, failure, seamcallErrors = [] } = observed;
  if (keyIds !== undefined) {
    const { start, end } = plan.privateKeyIds;
    compare('private KeyIDs', `[${start}, ${end})`, `[${keyIds.start}, ${keyIds.end})`);
  }
  if (initialized === true || failure !== undefined) {
    const planned = plan.failure?.error.number;
    const seen = observedErrno(observed);
    const agrees = seen === 'unknown' ? planned !== undefined : planned === seen;
    comparisons.push({ what: 'outcome', planned: outcome(planned), observed: outcome(seen), agrees });
  }
  const failedRange = plan.failure?.error.reason.data.tdmr as AddressRange | undefined;
  if (failure?.range !== undefined && failedRange !== undefined) {
    compare('range at fault', formatRange(failedRange), formatRange(failure.range));
  }
  const [refused] = seamcallErrors;
  if (refused !== undefined && initialized !== true) {
    const { leafName, statusName } = plan.failure?.error.reason.data ?? {};
    const planned = statusName === undefined ? 'none fails' : `${leafName} ${statusName}`;
    compare('SEAMCALL', planned, `${hostLeafName(refused.leaf)} ${formatStatus(refused.status)}`);
  }
  if (pamtKb !== undefined) compare('PAMT', `${plan.pamtKb} KB`, `${pamtKb} KB`);
  if (tdmrs !== undefined) {
    compare('TDMRs', plan.tdmrs.map(formatRange).join(' '), tdmrs.map(formatRange).join(' '));
  }
  return comparisons;
}

/** A log that tells of a failure without its errno leaves it open which. */
function observedErrno({ failure }: Observed): number | 'unknown' | undefined {
  return failure === undefined ? undefined : (failure.errno ?? 'unknown');
}

function outcome(errno: number | 'unknown' | undefined): string {
  if (errno === undefined) return 'initialised';
  const name = Object.entries(ERRNO).find(([, value]) => value === -Number(errno))?.[0];
  return name === undefined ? 'failed' : `failed with ${name} (${errno})`;
}
