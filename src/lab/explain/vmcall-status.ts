/** Explains what the host answers to a TDVMCALL of a guest, in R10 (Linux host rules 2.5). */
import type { Explanation } from './explanation.ts';

interface Answer {
  readonly name: string;
  readonly meaning: string;
  readonly cause: string;
  readonly remedy: string;
}

const ANSWERS: ReadonlyMap<bigint, Answer> = new Map([
  [
    0x8000_0000_0000_0000n,
    {
      name: 'TDVMCALL INVALID_OPERAND',
      meaning: 'The host did not take an operand.',
      cause:
        'An MSR that KVM does not let a TD touch, a private address where a shared one is due, an I/O or MMIO size ' +
        'that does not exist.',
      remedy: 'In the guest the call with that operand is at fault; it is not an error of the module.',
    },
  ],
  [
    0x8000_0000_0000_0002n,
    {
      name: 'TDVMCALL ALIGN_ERROR',
      meaning: 'An address or size is not aligned.',
      cause: 'MapGPA with a range that is not made of whole 4 KiB pages.',
      remedy: 'Align the range in the guest.',
    },
  ],
  [
    0x8000_0000_0000_0003n,
    {
      name: 'TDVMCALL SUBFUNC_UNSUPPORTED',
      meaning: 'The host does not have this call.',
      cause:
        'An older KVM or VMM, or one that did not turn the exit on (MapGPA wants KVM_CAP_EXIT_HYPERCALL, GetQuote a ' +
        'VMM that serves it).',
      remedy: 'Update KVM and VMM; configure a quote generation service where GetQuote fails.',
    },
  ],
]);

/** The host's answer with this number; undefined where it is none. @internal */
export function explainVmcallStatus(value: bigint): Explanation | undefined {
  const answer = ANSWERS.get(value);
  if (answer === undefined) return undefined;
  return {
    kind: 'status',
    name: answer.name,
    number: `0x${value.toString(16)}`,
    summary: answer.meaning,
    facts: [{ label: 'from', text: 'the host, to TDG.VP.VMCALL in a guest (R10), not the module' }],
    cases: [{ cause: answer.cause, remedy: answer.remedy }],
    data: { value, from: 'vmcall' },
    parts: [],
  };
}
