/** Makes the plan of a surveyed host. */
import type { AddressRange } from '../../abi/address.ts';
import { formatStatus } from '../../abi/status.ts';
import { pamtBytes, pamtRange, tdmrPamtSizes } from '../../kernel/pamt-alloc.ts';
import type { Survey } from '../../survey/survey.ts';
import { compareWithObserved } from './compare.ts';
import { unconvertible } from './leave-out.ts';
import { nodeAccounts } from './node-accounts.ts';
import type { Plan, PlannedTdmr, PlanOptions, Verdict } from './plan.ts';
import { type PredictedFailure, type PredictedTdmr, type Prediction, predict } from './predict.ts';
import { findRemedies } from './remedies.ts';

/** The plan of one host under the given choices. @public */
export function planHost(survey: Survey, options: PlanOptions): Plan {
  const prediction = predict(survey, options);
  const { machine: live, failure } = prediction;
  const { description } = live;
  const { start, count } = live.privateKeyIds;
  const privateKeyIds = { start, end: start + count, count };
  // A kernel without TDX memory makes one empty TDMR, which no plan need show.
  const tdmrs = prediction.tdmrs
    .filter(({ start, end }) => start < end)
    .map((tdmr) => plannedTdmr(tdmr, prediction));
  const totalBytes = tdmrs.reduce((sum, tdmr) => sum + tdmr.pamtBytes.total, 0);
  const pamt = { totalBytes, totalKb: totalBytes / 1024 };
  return {
    host: description.name,
    machine: {
      packages: new Set(description.processors.map((cpu) => cpu.package)).size,
      logicalProcessors: live.lps.length,
      physicalAddressBits: description.physicalAddressBits,
      memoryBytes: live.presentMemory.reduce((sum, range) => sum + range.end - range.start, 0),
    },
    module: description.module,
    options,
    tdx: { enabledByBios: count > 0, privateKeyIds, globalKeyId: count > 0 ? start : null },
    tds: { max: Math.max(0, count - 1) },
    cmrs: description.cmrs.map(({ start: base, end }) => ({ start: base, end, bytes: end - base })),
    tdmrs,
    pamt,
    nodes: nodeAccounts(description, prediction),
    verdict: failure === null ? PASSES : verdictOf(failure, survey, prediction),
    warnings: warningsOf(prediction),
    remedies: failure === null ? [] : findRemedies(survey, options, prediction),
    comparisons: compareWithObserved(
      { privateKeyIds, pamtKb: pamt.totalKb, tdmrs, failure },
      survey.observed,
    ),
    notes: survey.notes,
  };
}

/** The kernel's warnings, less the failure's own, which says nothing that its reason does not. */
function warningsOf({ memblock, warnings, failure }: Prediction): readonly string[] {
  if (memblock.every((region) => region.kind !== 'ram')) {
    return ['the sources show no System RAM, so no kernel could boot here: give the whole memory map'];
  }
  return warnings.filter((text) => failure?.error.reason.text.startsWith(text) !== true);
}

function plannedTdmr(tdmr: PredictedTdmr, { limits, dynamicPamt }: Prediction): PlannedTdmr {
  const sizes = tdmrPamtSizes(tdmr.end - tdmr.start, limits, dynamicPamt);
  return {
    start: tdmr.start,
    end: tdmr.end,
    node: tdmr.node,
    reservedAreas: tdmr.reserved.length,
    reservedAreaLimit: limits.maxReservedPerTdmr,
    reserved: tdmr.reserved,
    pamtBytes: { '4k': sizes.bytes4k, '2m': sizes.bytes2m, '1g': sizes.bytes1g, total: pamtBytes(sizes) },
    pamt: tdmr.pamt === null ? null : { ...pamtRange(tdmr.pamt), node: tdmr.pamt.node },
  };
}

const PASSES: Verdict = {
  ok: true,
  step: null,
  errno: null,
  errnoName: null,
  status: null,
  code: null,
  reason: null,
  ranges: [],
};

function verdictOf({ step, error }: PredictedFailure, survey: Survey, prediction: Prediction): Verdict {
  const { code, text, data } = error.reason;
  const status = data.status === undefined ? null : BigInt(data.status as string);
  return {
    ok: false,
    step,
    errno: error.number,
    errnoName: error.errno,
    status: status === null ? null : { value: status, name: formatStatus(status) },
    code,
    reason: text,
    ranges: rangesAtFault(data, survey, prediction),
  };
}

/** Statuses of TDH.SYS.CONFIG that memory outside the CMRs leads to, directly or by what has to be reserved for it. */
const CMR_STATUSES = /_OUTSIDE_CMRS|_RESERVED_/;

function rangesAtFault(
  { holes, tdmr, range, statusName }: Readonly<Record<string, unknown>>,
  survey: Survey,
  prediction: Prediction,
): readonly AddressRange[] {
  if (holes !== undefined) return holes as readonly AddressRange[];
  const one = (tdmr ?? range) as AddressRange | undefined;
  if (one !== undefined) return [one];
  return CMR_STATUSES.test(String(statusName)) ? unconvertible(survey, prediction) : [];
}
