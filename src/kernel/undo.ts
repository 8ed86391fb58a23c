/** Undoing a failed initialisation (Linux host rules 1.3, error unwinding). */
import { TDH } from '../abi/leaves.ts';
import { type Cpu, onlineCpus, wbinvdAll } from './cpu.ts';
import { type Pamt, pamtRange } from './pamt-alloc.ts';
import { seamcall, setOperands } from './seamcall.ts';

/** Steps that take back what was done, run in reverse order. @internal */
export class UndoStack {
  readonly #steps: (() => void)[] = [];

  push(step: () => void): void {
    this.#steps.push(step);
  }

  unwind(): void {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) step();
  }
}

/** TDH.SYS.LP.SHUTDOWN on every online CPU in VMX operation; nobody can act on its outcome. @public */
export function shutDownModule(cpus: readonly Cpu[]): void {
  for (const cpu of onlineCpus(cpus)) {
    if (cpu.vmxRefs === 0) continue;
    setOperands(cpu);
    seamcall(cpu, TDH.sysLpShutdown);
  }
}

/**
 * Takes PAMT memory back from a module that was configured with it: all caches are flushed and, on machines with
 * the partial-write erratum, every line is written whole, since a partial write to it would be a machine check.
 * @public
 */
export function resetPamts(cpus: readonly Cpu[], pamts: readonly Pamt[], partialWriteMce: boolean): void {
  wbinvdAll(cpus);
  const cpu = onlineCpus(cpus)[0];
  if (!partialWriteMce || cpu === undefined) return;
  for (const pamt of pamts) {
    const { start, end } = pamtRange(pamt);
    cpu.lp.movdir64bZero(start, end);
  }
}
