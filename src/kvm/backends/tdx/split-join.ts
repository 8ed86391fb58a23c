/** Large pages: DEMOTE where only a part goes, PROMOTE where 512 small ones can be joined (Linux host rules 1.14). */
import { PAGE_2M, PAGE_4K } from '../../../abi/address.ts';
import { TDH } from '../../../abi/leaves.ts';
import { R12, R13, RCX, regNumber, setRegNumber } from '../../../abi/registers.ts';
import { STATUS_NAME_MASK } from '../../../abi/status.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import type { PagePair } from '../../../kernel/pamt-pages.ts';
import { seamcall, setOperands } from '../../../kernel/seamcall.ts';
import { PAGES_IN_RANGE } from './private-mirror.ts';
import { BLOCK_TRACK, runSteps } from './remove-steps.ts';
import type { SecureEpt } from './secure-ept.ts';
import { bugOn, isBusy, tdCall } from './td-call.ts';
import type { TrustDomain } from './trust-domain.ts';
import { writeBack } from './write-back.ts';

const LEVEL_2M = 1;
/** Tries of a DEMOTE that interrupts cut short; each starts over. */
const DEMOTE_TRIES = 10_000;

/**
 * Makes the large page of `range` 512 small ones, in a TD that has its KeyID. False when the module refused, with the VM
 * broken. Throws ENOMEM.
 * @internal
 */
export async function splitLarge(td: TrustDomain, { mirror }: SecureEpt, range: number): Promise<boolean> {
  const { pages } = td.host;
  const gpa = range * PAGE_2M + LEVEL_2M;
  const table = pages.allocLent(td.cpu, 'secure EPT');
  const pair = takePair(td, table);
  let status: bigint = STATUS.TDX_OPERAND_BUSY;
  if (await runSteps(td, gpa, BLOCK_TRACK)) {
    status = demote(td, gpa, table, pair);
    if (isBusy(status)) {
      await td.kick();
      status = demote(td, gpa, table, pair);
    }
    if (status !== STATUS.TDX_SUCCESS) bugOn(td.vm, TDH.memPageDemote, status, { range });
  }
  if (status !== STATUS.TDX_SUCCESS) {
    pages.freeLent(td.cpu, table);
    if (pair !== null) pages.pamt?.freePair(pair);
    return false;
  }
  pages.pamt?.noteSplit(mirror.large(range)! * PAGE_4K);
  mirror.split(range, table);
  return true;
}

/** Metadata pages for 512 small pages, or null where PAMT is static. Throws ENOMEM, with `table` freed. */
function takePair({ cpu, host: { pages } }: TrustDomain, table: number): PagePair | null {
  try {
    return pages.pamt?.takePair() ?? null;
  } catch (error) {
    pages.freeLent(cpu, table);
    throw error;
  }
}

function demote({ cpu, tdr }: TrustDomain, gpa: number, table: number, pair: PagePair | null): bigint {
  let status: bigint = STATUS.TDX_INTERRUPTED_RESTARTABLE;
  for (let tries = DEMOTE_TRIES; tries > 0 && isRestartable(status); tries--) {
    setOperands(cpu, gpa, tdr, table);
    const { regs } = cpu.lp;
    setRegNumber(regs, R12, pair?.[0] ?? 0);
    setRegNumber(regs, R13, pair?.[1] ?? 0);
    status = seamcall(cpu, TDH.memPageDemote);
  }
  return status;
}

function isRestartable(status: bigint): boolean {
  return (status & STATUS_NAME_MASK) === STATUS.TDX_INTERRUPTED_RESTARTABLE;
}

/** True when the 512 pages of `range` lie one after the other in one range of memory. */
function areContiguous(pfns: Float64Array): boolean {
  const first = pfns[0]!;
  if (first < 0 || first % PAGES_IN_RANGE !== 0) return false;
  return pfns.every((pfn, i) => pfn === first + i);
}

/**
 * Makes the small pages of `range` one large page, where they are contiguous and in one state. False when they are not;
 * what was blocked for the try is unblocked again.
 * @internal
 */
export async function joinSmall(td: TrustDomain, { mirror }: SecureEpt, range: number): Promise<boolean> {
  const table = mirror.table(range);
  if (table === undefined || table.mapped < PAGES_IN_RANGE || !areContiguous(table.pfns)) return false;
  const gpa = range * PAGE_2M + LEVEL_2M;
  if (!(await runSteps(td, gpa, BLOCK_TRACK))) return false;
  let { cpu } = td;
  let status = tdCall(cpu, TDH.memPagePromote, gpa, td.tdr);
  if (isBusy(status)) {
    await td.kick();
    cpu = td.cpu;
    status = tdCall(cpu, TDH.memPagePromote, gpa, td.tdr);
  }
  if (status !== STATUS.TDX_SUCCESS) {
    const undone = tdCall(cpu, TDH.memRangeUnblock, gpa, td.tdr);
    if (undone !== STATUS.TDX_SUCCESS) bugOn(td.vm, TDH.memRangeUnblock, undone, { range });
    return false;
  }
  const { regs } = cpu.lp;
  const freed = regNumber(regs, RCX);
  const pair: PagePair = [regNumber(regs, R12), regNumber(regs, R13)];
  const { pages } = td.host;
  pages.pamt?.noteJoined(table.pfns[0]! * PAGE_4K, pair);
  mirror.join(range);
  if (writeBack(td, cpu, freed)) {
    pages.reset(cpu, freed);
    pages.freeLent(cpu, freed);
  } else pages.leak(freed, 'secure EPT', 'its cache lines could not be written back');
  return true;
}
