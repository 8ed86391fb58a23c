/** Memory whose leaving out would let a host pass, found from the reason of its failure. */
import { type AddressRange, hex, PAGE_4K } from '../../abi/address.ts';
import { subtract } from '../../abi/ranges.ts';
import type { Survey } from '../../survey/survey.ts';
import type { Prediction } from './predict.ts';

/** The smallest ranges to leave out for the failure of `prediction`, ascending; empty when none would help. @internal */
export function rangesToLeaveOut(survey: Survey, prediction: Prediction): readonly AddressRange[] {
  const code = prediction.failure?.error.reason.code;
  if (code === 'reserved-areas-exhausted') return splinters(prediction);
  if (code === 'seamcall-failed') return unconvertible(survey, prediction);
  return [];
}

/** `survey` as it would be with the ranges marked reserved on the kernel command line (`memmap=size$start`). @internal */
export function leaveOut(survey: Survey, ranges: readonly AddressRange[]): Survey {
  const reserved = ranges.map(({ start, end }) => ({ start, end, type: 'reserved' as const }));
  const { machine } = survey;
  return { ...survey, machine: { ...machine, e820: [...machine.e820, ...reserved] } };
}

/** The command line that leaves `ranges` out. @internal */
export function memmapOption(ranges: readonly AddressRange[]): string {
  return `memmap=${ranges.map(({ start, end }) => `${hex(end - start)}$${hex(start)}`).join(',')}`;
}

function blocks({ memlist }: Prediction): AddressRange[] {
  return memlist.map(({ startPfn, endPfn }) => ({ start: startPfn * PAGE_4K, end: endPfn * PAGE_4K }));
}

/** In every TDMR above the limit: the smallest memory blocks between two holes, each of which joins the two. */
function splinters(prediction: Prediction): readonly AddressRange[] {
  const limit = prediction.limits.maxReservedPerTdmr;
  return prediction.tdmrs
    .flatMap((tdmr) => {
      const excess = tdmr.reserved.length - limit;
      if (excess <= 0) return [];
      const starts = new Set(tdmr.reserved.filter(({ why }) => why === 'hole').map(({ start }) => start));
      const ends = new Set(tdmr.reserved.filter(({ why }) => why === 'hole').map(({ end }) => end));
      return blocks(prediction)
        .filter((block) => ends.has(block.start) && starts.has(block.end))
        .sort((a, b) => a.end - a.start - (b.end - b.start))
        .slice(0, excess);
    })
    .sort((a, b) => a.start - b.start);
}

/** TDX memory that no CMR covers, ascending. @internal */
export function unconvertible(survey: Survey, prediction: Prediction): readonly AddressRange[] {
  return subtract(blocks(prediction), survey.machine.cmrs);
}
