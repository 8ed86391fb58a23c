/** What each status means, what brings it about, and what to do: the tables put together. */
import { decodeStatus } from '../../abi/status.ts';
import type { Recovery, StatusAdvice } from './advice/advice.ts';
import { BRING_UP_ADVICE } from './advice/bring-up.ts';
import { CALL_ADVICE } from './advice/calls.ts';
import { CLASS_ADVICE, type ClassAdvice } from './advice/class-advice.ts';
import { SEAMLDR_ADVICE, SOFTWARE_ADVICE } from './advice/software.ts';
import { TD_ADVICE } from './advice/td.ts';

/** Advice written for one status, by its name; statuses not here take that of their class. @internal */
export const STATUS_ADVICE: Readonly<Partial<Record<string, StatusAdvice>>> = {
  ...CALL_ADVICE,
  ...BRING_UP_ADVICE,
  ...TD_ADVICE,
  ...SOFTWARE_ADVICE,
  ...SEAMLDR_ADVICE,
};

const UNKNOWN_CLASS: ClassAdvice = {
  about: 'something this table does not know',
  recovery: 'input',
  cause: 'The class is in no release known here: a newer module, or a number that is no status.',
  remedy: 'Check that the number was copied whole; look it up in the interface description of your module.',
};

/** Advice for a status: its own, or made from its class and name. @internal */
export function adviceFor(value: bigint, name: string | undefined): StatusAdvice {
  const own = name === undefined ? undefined : STATUS_ADVICE[name];
  if (own !== undefined) return own;
  const { classCode, error, nonRecoverable } = decodeStatus(value);
  const general = CLASS_ADVICE[classCode] ?? UNKNOWN_CLASS;
  const recovery: Recovery =
    !error && !nonRecoverable && general.recovery !== 'exit' ? 'done' : general.recovery;
  const said = name === undefined ? '' : `: ${wordsOf(name)}`;
  return {
    meaning: `A status about ${general.about}${said}.`,
    recovery,
    cause: general.cause,
    remedy: general.remedy,
  };
}

/** `TDX_IOMMU_IQ_QUEUE_FULL` as `iommu iq queue full`. */
function wordsOf(name: string): string {
  return name
    .replace(/^TDX?_/, '')
    .replaceAll('_', ' ')
    .toLowerCase();
}
