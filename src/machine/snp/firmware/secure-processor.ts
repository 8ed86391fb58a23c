/**
 * The AMD secure processor with its SEV firmware, as far as SNP goes. The host reaches it by the mailbox alone: a command
 * number and the physical address of a buffer in memory; a status comes back.
 */
import { PAGE_4K, pfnOf } from '../../../abi/address.ts';
import type { Machine } from '../../machine.ts';
import type { Snp } from '../snp.ts';
import { SEV_STATUS, SNP_COMMAND } from './commands.ts';
import { activate, decommission, dfFlush, gctxCreate, guestStatus } from './guest-commands.ts';
import type { GuestContextState } from './guest-context.ts';
import { launchFinish, launchStart } from './launch-commands.ts';
import { launchUpdate } from './launch-update.ts';
import { type PageState, pageState } from './page-states.ts';
import { initEx, pageReclaim, platformStatus } from './platform-commands.ts';

type Handler = (psp: SecureProcessor, bufferAddress: number) => number;

const HANDLERS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [SNP_COMMAND.INIT_EX, initEx],
  [SNP_COMMAND.PLATFORM_STATUS, platformStatus],
  [SNP_COMMAND.PAGE_RECLAIM, pageReclaim],
  [SNP_COMMAND.DF_FLUSH, dfFlush],
  [SNP_COMMAND.GCTX_CREATE, gctxCreate],
  [SNP_COMMAND.ACTIVATE, activate],
  [SNP_COMMAND.GUEST_STATUS, guestStatus],
  [SNP_COMMAND.DECOMMISSION, decommission],
  [SNP_COMMAND.LAUNCH_START, launchStart],
  [SNP_COMMAND.LAUNCH_UPDATE, launchUpdate],
  [SNP_COMMAND.LAUNCH_FINISH, launchFinish],
]);

/** Commands that work before INIT_EX. */
const UNINITIALISED: ReadonlySet<number> = new Set([SNP_COMMAND.INIT_EX, SNP_COMMAND.PLATFORM_STATUS]);

/** @public */
export class SecureProcessor {
  readonly machine: Machine;
  readonly snp: Snp;
  /** Fault point: a status that this command answers with instead of being carried out. */
  fault: ((command: number) => number | null) | null = null;
  /** Looks on: every command with its status. */
  observer: ((command: number, status: number) => void) | null = null;
  initialised = false;
  /** Guests by the address of their context page. */
  readonly contexts = new Map<number, GuestContextState>();
  /** ASIDs that no guest may take before the next DF_FLUSH. */
  readonly usedAsids = new Set<number>();
  /** LPs that have not executed WBINVD since an ASID was given up. */
  readonly unflushedLps = new Set<number>();

  constructor(machine: Machine, snp: Snp) {
    this.machine = machine;
    this.snp = snp;
  }

  /** Rings the mailbox. Returns a status (SEV_STATUS). */
  command(command: number, bufferAddress: number): number {
    const status = this.fault?.(command) ?? this.#execute(command, bufferAddress);
    this.observer?.(command, status);
    return status;
  }

  /** The hardware's note of a WBINVD. @internal */
  wbinvd(lpIndex: number): void {
    this.unflushedLps.delete(lpIndex);
  }

  /** Reads a command's buffer. */
  read<V>(layout: { readonly bytes: number; decode(bytes: Uint8Array): V }, address: number): V {
    return layout.decode(this.machine.memory.read(address, layout.bytes, 0));
  }

  /** The context whose page is at `address`, or the status that refuses it. */
  context(address: bigint): GuestContextState | number {
    if (!this.isPage(address)) return SEV_STATUS.INVALID_ADDRESS;
    return this.contexts.get(Number(address)) ?? SEV_STATUS.INVALID_GUEST;
  }

  isPage(address: bigint): boolean {
    const { rmp } = this.snp;
    return address % BigInt(PAGE_4K) === 0n && address < BigInt(rmp.pages * PAGE_4K);
  }

  stateOf(address: number): PageState {
    return pageState(this.snp.rmp.covering(pfnOf(address)));
  }

  /** Writes what a command answers into a page that the host made the firmware's. Returns a status. */
  answer(address: bigint, bytes: Uint8Array): number {
    if (!this.isPage(address)) return SEV_STATUS.INVALID_ADDRESS;
    if (this.stateOf(Number(address)) !== 'firmware') return SEV_STATUS.INVALID_PAGE_STATE;
    this.machine.memory.write(Number(address), bytes, 0);
    return SEV_STATUS.SUCCESS;
  }

  /** 256 fresh bits. */
  randomKey(): Uint8Array {
    const words = BigUint64Array.from({ length: 4 }, () => this.machine.entropy.next64() ?? 0n);
    return new Uint8Array(words.buffer);
  }

  /** State for a saved machine. */
  save() {
    return {
      initialised: this.initialised,
      contexts: this.contexts,
      usedAsids: this.usedAsids,
      unflushedLps: this.unflushedLps,
    };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<SecureProcessor['save']>): void {
    this.initialised = saved.initialised;
    for (const [address, context] of saved.contexts) this.contexts.set(address, context);
    for (const asid of saved.usedAsids) this.usedAsids.add(asid);
    for (const index of saved.unflushedLps) this.unflushedLps.add(index);
  }

  #execute(command: number, bufferAddress: number): number {
    const handler = HANDLERS.get(command);
    if (handler === undefined) return SEV_STATUS.INVALID_COMMAND;
    if (!this.initialised && !UNINITIALISED.has(command)) return SEV_STATUS.INVALID_PLATFORM_STATE;
    return handler(this, bufferAddress);
  }
}
