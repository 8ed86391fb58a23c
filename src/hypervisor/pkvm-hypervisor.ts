/** The pKVM hypervisor: it runs below the host's kernel, which it trusts with nothing it has given away. */
import { ERRNO } from '../abi/errno.ts';
import { HOST_CALL, SMCCC, setSignedRegister, X } from '../abi/pkvm.ts';
import type { HypervisorImage } from '../machine/hypervisor-image.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import type { Machine } from '../machine/machine.ts';
import { type HypState, handleHostCall } from './hypercalls.ts';
import { Ownership } from './ownership.ts';
import { VmTable } from './vm-table.ts';

/** @public */
export class PkvmHypervisor implements HypervisorImage {
  readonly name = 'pkvm';
  readonly ownership: Ownership;
  readonly table = new VmTable();
  readonly #state: HypState;
  #isInitialised = false;
  /** Processors behind the host's stage 2. */
  readonly #finalised = new Set<number>();
  /** HVCs by function id, for those who look on. */
  readonly calls = new Map<number, number>();

  constructor(machine: Machine) {
    this.ownership = new Ownership(machine);
    this.#state = { ownership: this.ownership, table: this.table, loaded: new Map() };
  }

  /** The host is deprivileged: it reaches only what its stage 2 maps. */
  get isFinal(): boolean {
    return this.#finalised.size > 0;
  }

  hvc(lp: LogicalProcessor): void {
    const { regs } = lp;
    const call = Number(regs.q[X.x0]!);
    this.calls.set(call, (this.calls.get(call) ?? 0) + 1);
    const result = this.#answer(call, lp);
    setSignedRegister(regs, X.x0, result === undefined ? SMCCC.notSupported : SMCCC.success);
    setSignedRegister(regs, X.x1, result ?? 0);
  }

  #answer(call: number, lp: LogicalProcessor): number | undefined {
    if (call === HOST_CALL.protFinalize) return this.#isInitialised ? this.#finalise(lp) : undefined;
    if (!this.isFinal) return call === HOST_CALL.pkvmInit ? this.#init(lp) : undefined;
    return handleHostCall(this.#state, call, lp);
  }

  /** Takes the memory that the kernel reserved for it at boot. */
  #init({ regs }: LogicalProcessor): number {
    const pfn = Number(regs.q[X.x1]!);
    const pages = Number(regs.q[X.x2]!);
    if (this.#isInitialised) return -ERRNO.EPERM;
    if (pages === 0 || !this.ownership.isMemory(pfn, pages)) return -ERRNO.EINVAL;
    this.ownership.states.carveOut(pfn, pfn + pages);
    this.#isInitialised = true;
    return 0;
  }

  #finalise(lp: LogicalProcessor): number {
    if (this.#finalised.has(lp.index)) return -ERRNO.EPERM;
    this.#finalised.add(lp.index);
    lp.machine.hostAccess = (address, lengthBytes) => this.ownership.checkHostAccess(address, lengthBytes);
    return 0;
  }
}
