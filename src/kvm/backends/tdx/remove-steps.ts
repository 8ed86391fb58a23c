/**
 * The calls that take a page from a running TD, in their order (Linux host rules 2.4). They are made without waiting as
 * long as nothing is in their way: conversions come by the hundred thousand.
 */
import { TDH } from '../../../abi/leaves.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import { bugOn, isBusy, tdCall } from './td-call.ts';
import type { TrustDomain } from './trust-domain.ts';

/** Leaves in their order. @internal */
export type RemoveSteps = readonly number[];

/** A page on its own: no translation is left in any TLB when it is removed. @internal */
export const BLOCK_TRACK_REMOVE: RemoveSteps = [TDH.memRangeBlock, TDH.memTrack, TDH.memPageRemove];
/** Before a page is split, or a table joined. @internal */
export const BLOCK_TRACK: RemoveSteps = [TDH.memRangeBlock, TDH.memTrack];
/** Many pages with one epoch for all: each is blocked, then all are tracked, then each removed. @internal */
export const BLOCK: RemoveSteps = [TDH.memRangeBlock];
/** @internal */
export const TRACK: RemoveSteps = [TDH.memTrack];
/** @internal */
export const REMOVE: RemoveSteps = [TDH.memPageRemove];

/** Scheduling points after the calls: vCPUs go on meanwhile. */
const POINTS: Readonly<Record<number, string>> = {
  [TDH.memRangeBlock]: 'tdx-blocked',
  [TDH.memTrack]: 'tdx-tracked',
  [TDH.memPageRemove]: 'tdx-removed',
};

/**
 * Makes the calls of `steps` from number `from` on. `gpa` carries the level in its low bits. False when the module
 * refused one: the VM is broken then. A promise only where vCPUs have to leave the guest first. Caller holds the mmu lock.
 * @internal
 */
export function runSteps(
  td: TrustDomain,
  gpa: number,
  steps: RemoveSteps,
  from = 0,
): boolean | Promise<boolean> {
  for (let i = from; i < steps.length; i++) {
    const leaf = steps[i]!;
    // Before the TD is final no vCPU has run, and there is nothing to track.
    if (leaf === TDH.memTrack && td.state !== 'runnable') continue;
    const status = issue(td, leaf, gpa);
    if (status !== STATUS.TDX_SUCCESS) {
      if (isBusy(status)) return repeatWithoutVcpus(td, gpa, steps, i);
      bugOn(td.vm, leaf, status, { gpa });
      return false;
    }
    const pause = leaf === TDH.memTrack && td.isRunning ? td.vm.kickAll() : null;
    const { schedule } = td.vm.kernel;
    if (pause !== null || schedule !== null)
      return goOn(td, gpa, steps, i + 1, pause ?? schedule!(POINTS[leaf]!));
  }
  return true;
}

/** The further calls, after `pause`. */
async function goOn(
  td: TrustDomain,
  gpa: number,
  steps: RemoveSteps,
  from: number,
  pause: Promise<void>,
): Promise<boolean> {
  await pause;
  return runSteps(td, gpa, steps, from);
}

/** A busy operand is one that a vCPU holds: all leave the guest and stay out, and the call is made again, once. */
async function repeatWithoutVcpus(
  td: TrustDomain,
  gpa: number,
  steps: RemoveSteps,
  at: number,
): Promise<boolean> {
  const leaf = steps[at]!;
  td.waitsForZap = true;
  try {
    await td.vm.kickAll();
    const status = issue(td, leaf, gpa);
    if (status !== STATUS.TDX_SUCCESS) {
      bugOn(td.vm, leaf, status, { gpa });
      return false;
    }
  } finally {
    td.waitsForZap = false;
  }
  if (leaf === TDH.memTrack) await td.vm.kickAll();
  return runSteps(td, gpa, steps, at + 1);
}

/** On a processor that is online now: one may have gone while others left the guest. */
function issue({ tdr, cpu }: TrustDomain, leaf: number, gpa: number): bigint {
  return leaf === TDH.memTrack ? tdCall(cpu, leaf, tdr) : tdCall(cpu, leaf, gpa, tdr);
}
