/** Leaving this kernel for another one, and sleep, on a TDX host (Linux host rules 1.8, 1.9, 5.11). */
import type { AddressRange } from '../abi/address.ts';
import { KernelError, type Reason } from '../abi/errno.ts';
import { TDH } from '../abi/leaves.ts';
import { formatStatus, SW_STATUS } from '../abi/status.ts';
import { STATUS } from '../abi/status-codes.ts';
import { firstOnline, onlineCpus, wbinvd } from './cpu.ts';
import type { HostKernel } from './host-kernel.ts';
import { seamcall, setOperands } from './seamcall.ts';
import type { TdxEnabler } from './tdx-enabler.ts';

/** What the next kernel finds. @public */
export interface KexecOutcome {
  /** A kernel was started; false where the machine has to be reset after a crash. */
  readonly started: boolean;
  /** The module is as the loader left it, and can be initialised again. */
  readonly moduleDisabled: boolean;
  /** Memory that may still be under private KeyIDs: with the partial-write erratum writing to it raises machine checks. */
  readonly hazard: readonly AddressRange[];
  readonly why: Reason;
}

/** `s2idle` keeps everything powered, `s3` only memory, `disk` is hibernation. @public */
export type SleepState = 's2idle' | 's3' | 'disk';

/** Tries of TDH.SYS.DISABLE while it is interrupted or the module is busy. */
const DISABLE_TRIES = 1000;

/** Throws EPERM where the policy refuses; a crash cannot be refused, and ends in a reset then. @internal */
export function kexec(kernel: HostKernel, tdx: TdxEnabler, isCrash: boolean): KexecOutcome {
  const { policy, log } = kernel;
  const usable = [...kernel.tdxMemory];
  if (tdx.state !== 'initialized') return left(true, false, [], 'tdx-off', 'TDX is not initialised');
  if (policy.kexec === 'refuse') {
    const text = 'no kernel is started while TDX is enabled (kexec=refuse)';
    if (!isCrash) throw new KernelError('EPERM', 'kexec-refused', text, { policy: 'refuse' });
    return left(false, false, [], 'crash-reset', `${text}: the machine is reset, without a dump`);
  }
  const failed = policy.kexec === 'disable-module' ? disableModule(kernel) : null;
  if (failed !== null) log.err(failed.text, failed.code);
  for (const cpu of onlineCpus(kernel.cpus)) if (cpu.cacheStateIncoherent) wbinvd(cpu);
  tdx.cpuState.unregister();
  if (policy.kexec === 'disable-module' && failed === null) {
    return left(true, true, [], 'module-disabled', 'the module was disabled and all its memory given back');
  }
  const hazard = tdx.detection!.errata.partialWriteMce ? usable : [];
  const reason = failed?.text ?? 'the module was left behind (kexec=flush)';
  const danger = hazard.length > 0 ? '; writing to memory that TDs had raises machine checks' : '';
  return left(true, false, hazard, failed?.code ?? 'module-left-behind', `${reason}${danger}`);
}

function left(
  started: boolean,
  moduleDisabled: boolean,
  hazard: readonly AddressRange[],
  code: string,
  text: string,
): KexecOutcome {
  return { started, moduleDisabled, hazard, why: { code, text, data: {} } };
}

/** TDH.SYS.DISABLE. Returns why it failed, or null. */
function disableModule({ cpus }: HostKernel): Reason | null {
  const cpu = firstOnline(cpus);
  let status: bigint = STATUS.TDX_SYS_BUSY;
  for (let tries = DISABLE_TRIES; tries > 0; tries--) {
    setOperands(cpu);
    status = seamcall(cpu, TDH.sysDisable);
    if (status !== STATUS.TDX_INTERRUPTED_RESUMABLE && status !== STATUS.TDX_SYS_BUSY) break;
  }
  if (status === STATUS.TDX_SUCCESS || status === SW_STATUS.TDX_SEAMCALL_VMFAILINVALID) return null;
  const text = `TDH.SYS.DISABLE failed: ${formatStatus(status)}`;
  return { code: 'sys-disable-failed', text, data: { status } };
}

/** Throws EOPNOTSUPP for a sleep that TDX excludes, EPERM for one that the policy refuses, EBUSY when asleep. @internal */
export function suspend(kernel: HostKernel, tdx: TdxEnabler, sleep: SleepState): void {
  const { detection, state } = tdx;
  if (sleep === 'disk' && !kernel.config.hibernation) {
    throw new KernelError('EPERM', 'no-hibernation', 'hibernation is off for the whole boot (nohibernate)');
  }
  if (sleep === 's3' && detection?.s3Disabled === true) {
    throw new KernelError(
      'EOPNOTSUPP',
      's3-disabled',
      'ACPI S3 is disabled on a TDX host: it would lose the KeyIDs',
    );
  }
  if (state !== 'initialized') return;
  if (kernel.policy.suspend === 'refuse' || sleep !== 's2idle') {
    const text = `the host does not sleep (${sleep}) while TDX is enabled`;
    throw new KernelError('EPERM', 'suspend-refused', text, { sleep, policy: kernel.policy.suspend });
  }
  tdx.cpuState.suspend();
}
