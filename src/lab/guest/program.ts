/** A guest program: what a TD starts with and what its vCPUs do. */
import type { InitialPage } from '../td/lab-td.ts';
import type { GuestCpu, GuestFlow } from './flow.ts';

/** @public */
export interface GuestProgram {
  readonly name: string;
  /** One sentence. */
  readonly summary: string;
  /** Default 1. */
  readonly vcpus?: number;
  /** Private pages added and measured before the TD is final. */
  readonly pages?: readonly InitialPage[];
  /** The life of one vCPU; `say` prints a line for the person who watches. */
  readonly run: (cpu: GuestCpu, say: (text: string) => void) => GuestFlow;
}
