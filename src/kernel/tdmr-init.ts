/** Initialisation of the TDMRs' PAMTs (Linux host rules 1.3 i): hundreds of thousands of calls on a large host. */
import type { AddressRange } from '../abi/address.ts';
import { TDH } from '../abi/leaves.ts';
import { RDX, regNumber } from '../abi/registers.ts';
import { type Cpu, onlineCpus } from './cpu.ts';
import type { LogRing } from './log.ts';
import type { SchedulingPoint } from './scheduling.ts';
import { seamcallPrerrRet, setOperands } from './seamcall.ts';

/** Calls between two turns for others when no scheduler asks for more; a turn costs more than a call. */
const CALLS_PER_TURN = 65_536;

/**
 * Calls TDH.SYS.TDMR.INIT until the module says the whole TDMR is done. Throws the wrapper's errno.
 * @public
 */
export async function initTdmr(
  cpus: readonly Cpu[],
  tdmr: AddressRange,
  log: LogRing,
  schedule: SchedulingPoint | null,
): Promise<void> {
  let cpu = onlineCpus(cpus)[0]!;
  for (let next = tdmr.start, calls = 1; next < tdmr.end; calls++) {
    setOperands(cpu, tdmr.start);
    seamcallPrerrRet(cpu, TDH.sysTdmrInit, log);
    next = regNumber(cpu.lp.regs, RDX);
    if (schedule === null && calls % CALLS_PER_TURN !== 0) continue;
    await (schedule?.('tdmr-init') ?? new Promise((resolve) => setTimeout(resolve)));
    // The CPU may have gone offline meanwhile; the thread goes on elsewhere.
    if (!cpu.online) cpu = onlineCpus(cpus)[0]!;
  }
}
