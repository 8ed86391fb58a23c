/** One run of random calls on a module of its own, with a model checker watching. */
import { MIB, PAGE_2M, PAGE_4K } from '../../../src/abi/address.ts';
import { TDH } from '../../../src/abi/leaves.ts';
import { RAX, REGISTER_NAMES, type RegisterName } from '../../../src/abi/registers.ts';
import { formatStatus } from '../../../src/abi/status.ts';
import { type GuestCpu, GuestException, type GuestFlow } from '../../../src/lab/guest/flow.ts';
import { ScriptedGuests } from '../../../src/lab/guest/scripted-guests.ts';
import { type AbstractState, pageHolding } from '../../../src/lab/invariants/abstract-state.ts';
import { ModelChecker } from '../../../src/lab/invariants/model-checker.ts';
import { WatchedGuests } from '../../../src/lab/invariants/watched-guests.ts';
import { seamcallName } from '../../../src/lab/trace.ts';
import type { LogicalProcessor } from '../../../src/machine/lp.ts';
import type { TdxModule } from '../../../src/module/tdx-module.ts';
import type { ModuleMachine } from '../module-machine.ts';
import { ONE_TDMR, readyModule } from '../ready-module.ts';
import type { Dice } from './dice.ts';

export type Operands = Partial<Record<RegisterName, bigint>>;

/** What a guest does in its next step. */
export type GuestDeed = (cpu: GuestCpu) => GuestFlow<unknown>;

/** Pages that the host gives: 4 KiB ones from three 2 MiB ranges, large ones from four more. */
const SMALL_PAGES = ONE_TDMR.base + 16 * MIB;
const SMALL_PAGE_COUNT = 3 * 512;
const LARGE_PAGES = ONE_TDMR.base + 32 * MIB;
const LARGE_PAGE_COUNT = 4;
/** Donors of page metadata. */
const DONOR_PAGES = ONE_TDMR.base + 64 * MIB;
const DONOR_COUNT = 64;
/** Memory that is the host's own. */
export const HOST_BUFFER = 0x20_0000;

export interface ModelRunOptions {
  readonly dynamicPamt: boolean;
  readonly checkStateEvery: number;
  /** Puts a fault into the module before the run begins. */
  readonly sabotage?: (module: TdxModule) => void;
}

export class ModelRun {
  readonly host: ModuleMachine;
  readonly checker: ModelChecker;
  readonly guests: WatchedGuests;
  readonly dynamicPamt: boolean;
  /** SEAMCALLs and guest steps so far. */
  calls = 0;
  /** Statuses by leaf, for tests that ask what a run reached. */
  readonly reached = new Map<string, number>();
  /** Text of what happened, one line for each call or guest step; the last has no outcome when it threw. */
  readonly lines: string[] = [];
  readonly #scripts = new ScriptedGuests();
  readonly #deeds = new Map<number, GuestDeed>();

  constructor({ dynamicPamt, checkStateEvery, sabotage }: ModelRunOptions) {
    this.dynamicPamt = dynamicPamt;
    this.host = readyModule({ dynamicPamt });
    sabotage?.(this.host.module);
    this.checker = new ModelChecker(this.host.module, { checkStateEvery });
    this.guests = new WatchedGuests(this.#scripts, this.checker);
    this.host.machine.seam.observer = this.checker;
    for (const lp of this.host.machine.lps) lp.vmxOperation = true;
  }

  get state(): AbstractState {
    return this.checker.state;
  }

  /** LPs that run the host. */
  hostLps(): LogicalProcessor[] {
    return this.host.machine.lps.filter(({ index }) => !this.state.running.has(index));
  }

  /** LPs that run a guest. */
  guestLps(): LogicalProcessor[] {
    return this.host.machine.lps.filter(({ index }) => this.state.running.has(index));
  }

  /** Executes a leaf on an LP that runs the host; returns the status, or undefined when the LP runs a guest. */
  call(leaf: number, operands: Operands, lp: LogicalProcessor, version = 0): bigint | undefined {
    if (this.state.running.has(lp.index)) return undefined;
    const { q } = lp.regs;
    q.fill(0n);
    for (const name of Object.keys(operands) as RegisterName[]) {
      q[REGISTER_NAMES.indexOf(name)] = BigInt.asUintN(64, operands[name]!);
    }
    if (operands.rax === undefined) q[RAX] = BigInt(leaf) | (BigInt(version) << 16n);
    const text = this.#begin(lp, q[RAX]!, operands);
    lp.seamcall();
    const status = q[RAX]!;
    this.#end(text, status, formatStatus(status));
    if (leaf === TDH.vpCreate && status === 0n) this.#scriptVcpu(Number(operands.rcx!));
    return status;
  }

  /** The guest on `lp` does `deed`, up to its next VM exit. */
  step(lp: LogicalProcessor, name: string, deed: GuestDeed): void {
    const tdvpr = this.state.running.get(lp.index)!;
    this.#deeds.set(tdvpr, deed);
    this.calls++;
    this.lines.push(`lp${lp.index} guest 0x${tdvpr.toString(16)}: ${name}`);
    const outcome = this.guests.step(lp);
    this.lines[this.lines.length - 1] += ` = ${outcome}`;
    this.#count(`guest ${name.split(' ')[0]} ${outcome}`);
  }

  /** Gives a vCPU a script that does what `step` says, and lets the host run when it has nothing to do. */
  #scriptVcpu(tdvpr: number): void {
    const deeds = this.#deeds;
    this.#scripts.set(tdvpr, function* (cpu) {
      for (;;) {
        const deed = deeds.get(tdvpr);
        deeds.delete(tdvpr);
        try {
          if (deed === undefined) yield* cpu.interrupt();
          else yield* deed(cpu);
        } catch (error) {
          if (!(error instanceof GuestException)) throw error;
        }
      }
    });
  }

  /** A free 4 KiB page, with dynamic PAMT in a range that has a page pair where possible. */
  freePage(dice: Dice): number {
    const start = dice.below(SMALL_PAGE_COUNT);
    for (let i = 0; i < SMALL_PAGE_COUNT; i++) {
      const page = SMALL_PAGES + ((start + i) % SMALL_PAGE_COUNT) * PAGE_4K;
      if (pageHolding(this.state, page) !== undefined) continue;
      if (!this.dynamicPamt || this.state.pairs.has(page - (page % PAGE_2M))) return page;
    }
    return SMALL_PAGES;
  }

  /** A 2 MiB page, free or not. */
  largePage(dice: Dice): number {
    return LARGE_PAGES + dice.below(LARGE_PAGE_COUNT) * PAGE_2M;
  }

  /** A range whose metadata a page pair may hold. */
  pairedRange(dice: Dice): number {
    return (dice.onceIn(4) ? LARGE_PAGES : SMALL_PAGES) + dice.below(3) * PAGE_2M;
  }

  donorPage(dice: Dice): number {
    return DONOR_PAGES + dice.below(DONOR_COUNT) * PAGE_4K;
  }

  /** A page that belongs to somebody. */
  usedPage(dice: Dice): number {
    return dice.pickAny([...this.state.pages.keys()]) ?? ONE_TDMR.base;
  }

  #begin(lp: LogicalProcessor, rax: bigint, operands: Operands): string {
    this.calls++;
    const values = Object.entries(operands).map(([name, value]) => `${name}=0x${value.toString(16)}`);
    this.lines.push(`lp${lp.index} ${seamcallName(rax)}(${values.join(', ')})`);
    return seamcallName(rax);
  }

  #end(leaf: string, status: bigint, text: string): void {
    this.lines[this.lines.length - 1] += ` = ${text}`;
    this.#count(status === 0n ? leaf : `${leaf} ${text.split('(')[0]}`);
  }

  #count(what: string): void {
    this.reached.set(what, (this.reached.get(what) ?? 0) + 1);
  }
}
