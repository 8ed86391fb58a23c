/** TD exits in words: what VP.ENTER's registers say (module facts 11, 12; GHCI functions of TDG.VP.VMCALL). */
import { hex } from '../../abi/address.ts';
import { R8, R9, R10, R11, R12, R13, R14, RCX, RDX } from '../../abi/registers.ts';
import { formatStatus, STATUS_NAME_MASK } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';

/** Basic exit reasons that hosts meet. */
const REASONS: ReadonlyMap<number, string> = new Map([
  [0, 'exception or NMI'],
  [1, 'external interrupt'],
  [2, 'triple fault'],
  [6, 'SMI'],
  [48, 'EPT violation'],
  [49, 'EPT misconfiguration'],
  [77, 'TDVMCALL'],
]);

/** Functions of TDG.VP.VMCALL in R11, while R10 is 0. @public */
export const GHCI = {
  CPUID: 10,
  HLT: 12,
  IO: 30,
  RDMSR: 31,
  WRMSR: 32,
  MMIO: 48,
  GET_TD_VM_CALL_INFO: 0x10000,
  MAP_GPA: 0x10001,
  GET_QUOTE: 0x10002,
  REPORT_FATAL_ERROR: 0x10003,
  SETUP_EVENT_NOTIFY_INTERRUPT: 0x10004,
} as const;

const GHCI_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(GHCI).map(([name, value]) => [value, name]),
);

/** Extended exit qualification types in RDX bits 3:0. */
const EXTENDED_TYPES = [
  '',
  'ACCEPT',
  'GPA_DETAILS',
  'MSR load failure',
  'XSTATE load failure',
  'ATTR_WR',
  'PENDING',
  'VM entry failure',
];

/** The page is there and the guest has not accepted it. */
const PENDING = 6;

/** One TD exit. @public */
export type TdExit =
  | {
      readonly kind: 'tdvmcall';
      readonly func: number;
      readonly operands: readonly bigint[];
      readonly text: string;
    }
  | { readonly kind: 'ept-violation'; readonly gpa: number; readonly pending: boolean; readonly text: string }
  | { readonly kind: 'interrupt' | 'dead' | 'refused' | 'other'; readonly text: string };

/** Takes the registers after VP.ENTER apart. @public */
export function decodeTdExit(status: bigint, q: BigUint64Array): TdExit {
  const name = status & STATUS_NAME_MASK;
  if (status >> 63n === 1n) return { kind: 'refused', text: formatStatus(status) };
  const reason = Number(status & 0xffffn);
  const what = REASONS.get(reason) ?? `exit reason ${reason}`;
  if (name !== STATUS.TDX_SUCCESS) return { kind: 'dead', text: `${formatStatus(name)}, ${what}` };
  if (reason === 77) return tdvmcall(q);
  if (reason === 48) {
    const gpa = Number(q[R8]!);
    const type = Number(q[RDX]! & 0xfn);
    const extended = EXTENDED_TYPES[type] === '' ? '' : `, ${EXTENDED_TYPES[type]}`;
    const access = (q[RCX]! & 2n) === 0n ? 'read' : 'write';
    const text = `${what}: ${access} of GPA ${hex(gpa)}${extended}`;
    return { kind: 'ept-violation', gpa, pending: type === PENDING, text };
  }
  if (reason === 1) return { kind: 'interrupt', text: what };
  return { kind: 'other', text: `${what}, information ${hex(q[R9]!)}` };
}

function tdvmcall(q: BigUint64Array): TdExit {
  const operands = [q[R12]!, q[R13]!, q[R14]!];
  if (q[R10]! !== 0n)
    return { kind: 'tdvmcall', func: -1, operands, text: `TDVMCALL of a vendor, R10 ${hex(q[R10]!)}` };
  const func = Number(q[R11]!);
  const name = GHCI_NAMES.get(func) ?? `function ${hex(func)}`;
  const shown = operands.map((value, i) => `R${12 + i} ${hex(value)}`).join(' ');
  return { kind: 'tdvmcall', func, operands, text: `TDVMCALL ${name} ${shown}` };
}
