/**
 * Page pairs of Dynamic PAMT (Linux host rules 1.13): a 2 MiB range has one while any of its pages is used as a 4 KiB
 * page by the module. Counted by range; ranges that were never used cost nothing.
 */
import { alignDown, PAGE_2M, PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { TDH } from '../abi/leaves.ts';
import { R8, RDX, regNumber } from '../abi/registers.ts';
import { formatStatus } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import type { Cpu } from './cpu.ts';
import { seamcall, setOperands } from './seamcall.ts';
import type { TdMemory } from './td-memory.ts';

/** Level 2 MiB in the operand of PAMT.ADD and PAMT.REMOVE. */
const LEVEL_2M = 1;

/** Two pages that hold the 4 KiB metadata of a range. @public */
export type PagePair = readonly [first: number, second: number];

/** @public */
export class PamtPages {
  readonly #memory: TdMemory;
  /** Users by start of the range. */
  readonly #users = new Map<number, number>();
  /** Pages that a failed PAMT.REMOVE left with the module. */
  leakedPages = 0;

  constructor(memory: TdMemory) {
    this.#memory = memory;
  }

  /** Ranges that have a pair. */
  get pairs(): number {
    return this.#users.size;
  }

  /**
   * Before the 4 KiB page at `address` goes to the module. Throws ENOMEM without memory for a pair, EIO when the module
   * refuses it; nothing is kept then.
   */
  get(cpu: Cpu, address: number): void {
    const range = alignDown(address, PAGE_2M);
    const users = this.#users.get(range) ?? 0;
    if (users === 0) this.#add(cpu, range);
    this.#users.set(range, users + 1);
  }

  /** After the page at `address` has come back. */
  put(cpu: Cpu, address: number): void {
    const range = alignDown(address, PAGE_2M);
    const users = this.#users.get(range);
    if (users === undefined) throw new Error('a page came back whose range has no page pair');
    if (users > 1) {
      this.#users.set(range, users - 1);
      return;
    }
    this.#users.delete(range);
    this.#remove(cpu, range);
  }

  /** A pair for a large page that is to be split: the module takes it with the call that splits. */
  takePair(): PagePair {
    const first = this.#page();
    try {
      return [first, this.#page()];
    } catch (error) {
      this.#free(first);
      throw error;
    }
  }

  freePair([first, second]: PagePair): void {
    this.#free(first);
    this.#free(second);
  }

  /** The module has taken a pair for `range`, all of whose 512 pages it uses. */
  noteSplit(range: number): void {
    this.#users.set(range, PAGE_2M / PAGE_4K);
  }

  /** The module has given the pair of `range` back: its pages are one large page now. */
  noteJoined(range: number, pair: PagePair): void {
    this.#users.delete(range);
    this.freePair(pair);
  }

  #add(cpu: Cpu, range: number): void {
    const pair = this.takePair();
    setOperands(cpu, range + LEVEL_2M, ...pair);
    const status = seamcall(cpu, TDH.phymemPamtAdd);
    if (status === STATUS.TDX_SUCCESS) return;
    this.freePair(pair);
    throw new KernelError(
      'EIO',
      'pamt-add-failed',
      `TDH.PHYMEM.PAMT.ADD failed with ${formatStatus(status)}`,
      {
        range,
        status,
      },
    );
  }

  #remove(cpu: Cpu, range: number): void {
    setOperands(cpu, range + LEVEL_2M);
    if (seamcall(cpu, TDH.phymemPamtRemove) !== STATUS.TDX_SUCCESS) {
      this.leakedPages += 2;
      return;
    }
    const { regs } = cpu.lp;
    const pair: PagePair = [regNumber(regs, RDX), regNumber(regs, R8)];
    for (const page of pair) cpu.lp.movdir64bZero(page, page + PAGE_4K);
    this.freePair(pair);
  }

  #page(): number {
    return this.#memory.alloc(0, { purpose: 'pamt-pair' }) * PAGE_4K;
  }

  #free(page: number): void {
    this.#memory.free(page / PAGE_4K, 0);
  }
}
