/** What a leaf is to the dispatcher. */
import type { LogicalProcessor } from '../machine/lp.ts';
import type { TdxModule } from './tdx-module.ts';

/**
 * One host leaf: guard clauses in the ABI's order, then the effect. Operands and outputs are in `lp.regs`; the
 * returned status goes to RAX. `version` is RAX bits 23:16.
 * @internal
 */
export type LeafHandler = (module: TdxModule, lp: LogicalProcessor, version: number) => bigint;

/** A leaf with what the dispatcher must know about it; which leaves have versions is the release's to say. @internal */
export interface Leaf {
  readonly handler: LeafHandler;
  /** May be called before the module is ready. */
  readonly beforeReady?: boolean;
}
