/** The slot for software that runs below the host's kernel. */
import type { LogicalProcessor } from './lp.ts';

/** A hypervisor: it takes its operands from `lp.regs` and leaves its results there. @public */
export interface HypervisorImage {
  /** What the host's kernel logs, such as "pkvm". */
  readonly name: string;
  hvc(lp: LogicalProcessor): void;
}
