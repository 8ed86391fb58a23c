/** The global KeyID's key on every package (Linux host rules 1.3 h). */
import { KernelError } from '../abi/errno.ts';
import { TDH } from '../abi/leaves.ts';
import { type Cpu, firstOnlinePerPackage, wbinvdAll } from './cpu.ts';
import type { LogRing } from './log.ts';
import { seamcallPrerr, setOperands } from './seamcall.ts';

/**
 * Flushes all caches, because dirty KeyID 0 lines over the PAMTs would be written back over the module's data,
 * then runs TDH.SYS.KEY.CONFIG on one CPU of each package, one after the other: the leaf is not safe to run
 * concurrently. Throws EINVAL without an online CPU, otherwise the wrapper's errno.
 * @public
 */
export function configureGlobalKeyId(cpus: readonly Cpu[], log: LogRing): void {
  wbinvdAll(cpus);
  const chosen = firstOnlinePerPackage(cpus);
  if (chosen.length === 0)
    throw new KernelError('EINVAL', 'no-online-cpu', 'no CPU is online to configure the global KeyID');
  for (const cpu of chosen) {
    setOperands(cpu);
    seamcallPrerr(cpu, TDH.sysKeyConfig, log);
  }
}
