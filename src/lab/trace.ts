/** SEAMCALL traces: one line per call, registers in and out by name, status decoded. */
import { hex } from '../abi/address.ts';
import { hostLeafName, LEAVES } from '../abi/leaves.ts';
import { R8, RAX, RCX, RDX, REGISTER_NAMES } from '../abi/registers.ts';
import { formatStatus } from '../abi/status.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import type { SeamcallObserver } from '../machine/seam.ts';

const OPERANDS: ReadonlySet<number> = new Set([RCX, RDX, R8]);
const LOADER_BIT = 1n << 63n;
const LEAF_MASK = 0xffffn;

/** Name of what a SEAMCALL with this RAX calls: a host leaf (with its version when not 0) or a P-SEAMLDR leaf. @public */
export function seamcallName(rax: bigint): string {
  const number = Number(rax & LEAF_MASK);
  if ((rax & LOADER_BIT) !== 0n) {
    return (
      LEAVES.find((leaf) => leaf.side === 'seamldr' && leaf.number === number)?.name ??
      `SEAMLDR leaf ${number}`
    );
  }
  const version = Number((rax >> 16n) & 0xffn);
  return version === 0 ? hostLeafName(number) : `${hostLeafName(number)}.v${version}`;
}

/**
 * Formats every SEAMCALL as `seconds lpN LEAF in: name=value ... out: STATUS name=value ...`. RCX, RDX and R8, the
 * usual operands, always show; of the others inputs show that are not zero, and outputs that changed. A call that did
 * not enter SEAM mode says VMFailInvalid.
 * @public
 */
export class SeamcallTracer implements SeamcallObserver {
  readonly #write: (line: string) => void;
  readonly #before = new BigUint64Array(16);

  constructor(write: (line: string) => void) {
    this.#write = write;
  }

  before(lp: LogicalProcessor): void {
    this.#before.set(lp.regs.q);
  }

  after(lp: LogicalProcessor, entered: boolean): void {
    const before = this.#before;
    const { q } = lp.regs;
    let inputs = '';
    let outputs = '';
    for (let i = 0; i < 16; i++) {
      if (i === RAX) continue;
      const always = OPERANDS.has(i);
      if (always || before[i] !== 0n) inputs += ` ${REGISTER_NAMES[i]}=${hex(before[i]!)}`;
      if (always || q[i] !== before[i]) outputs += ` ${REGISTER_NAMES[i]}=${hex(q[i]!)}`;
    }
    const seconds = (lp.machine.clock.nowNs / 1e9).toFixed(6);
    const status = entered ? formatStatus(q[RAX]!) : 'VMFailInvalid';
    this.#write(
      `${seconds} lp${lp.index} ${seamcallName(before[RAX]!)} in: rax=${hex(before[RAX]!)}${inputs} out: ${status}${outputs}`,
    );
  }
}
