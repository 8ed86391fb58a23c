/** Faults of a scenario: SEAMCALLs, allocations and callbacks that fail, by number or with a probability. */
import { KernelError } from '../../../abi/errno.ts';
import { RAX } from '../../../abi/registers.ts';
import { STATUS, type StatusName } from '../../../abi/status-codes.ts';
import type { HostKernel } from '../../../kernel/host-kernel.ts';
import type { Machine } from '../../../machine/machine.ts';
import { Chance } from '../chance.ts';
import { leafNumber } from '../language/check-references.ts';
import type { FaultSpec } from '../language/scenario-schema.ts';

/** What a SEAMCALL answers whose fault names no status: any leaf may give it, and no wrapper repeats it. */
const DEFAULT_STATUS: StatusName = 'TDX_SYS_BUSY';

/** Decides call by call; each fault has random numbers of its own. */
function hits(fault: FaultSpec, seed: number, index: number): () => boolean {
  const chance = new Chance(seed, `fault ${index}`);
  let counted = 0;
  return () => {
    counted++;
    return fault.nth === undefined ? chance.next() < (fault.probability ?? 0) : counted === fault.nth;
  };
}

/** Arms all faults on a host that has booted; calls count from now on. @internal */
export function armFaults(
  faults: readonly FaultSpec[],
  machine: Machine,
  kernel: HostKernel,
  seed: number,
): void {
  const calls: { readonly leaf: number | undefined; readonly status: bigint; readonly hit: () => boolean }[] =
    [];
  const allocations: { readonly purpose: string; readonly hit: () => boolean }[] = [];
  faults.forEach((fault, index) => {
    const hit = hits(fault, seed, index);
    if ('seamcall' in fault) {
      const status = STATUS[(fault.status ?? DEFAULT_STATUS) as StatusName];
      calls.push({ leaf: leafNumber(fault.seamcall), status, hit });
    } else if ('allocation' in fault) allocations.push({ purpose: fault.allocation, hit });
    else armCallback(fault.callback, kernel, hit);
  });
  if (calls.length > 0) {
    machine.seam.fault = (lp) => {
      const number = lp.regs.d[2 * RAX]! & 0xffff;
      return calls.find(({ leaf, hit }) => (leaf === undefined || leaf === number) && hit())?.status;
    };
  }
  if (allocations.length > 0) {
    kernel.allocator.fault = (purpose) =>
      allocations.some((one) => (one.purpose === 'any' || one.purpose === purpose) && one.hit());
  }
}

function armCallback(
  callback: 'memory-online' | 'cpu-offline',
  kernel: HostKernel,
  hit: () => boolean,
): void {
  const refuse = (): void => {
    if (hit())
      throw new KernelError('EAGAIN', 'callback-failed', `a ${callback} callback failed on purpose`, {
        callback,
      });
  };
  if (callback === 'memory-online') kernel.memoryNotifiers.register(refuse);
  else kernel.onCpuOffline(refuse);
}
