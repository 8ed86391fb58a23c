/**
 * The CPU hot-plug state `virt/tdx:online` (Linux host rules 1.2): VMX operation, TDH.SYS.INIT once and
 * TDH.SYS.LP.INIT on every CPU that comes online; VMXOFF on every one that goes.
 */
import { KernelError } from '../abi/errno.ts';
import { TDH } from '../abi/leaves.ts';
import { type Cpu, onlineCpus, wbinvd } from './cpu.ts';
import type { KeyIdPool } from './keyid-pool.ts';
import type { LogRing } from './log.ts';
import { seamcallPrerr, setOperands } from './seamcall.ts';
import { getVmx, putVmx } from './vmx.ts';

/** @internal */
export class TdxCpuState {
  readonly #log: LogRing;
  /** CPUs whose VMX reference is ours; null while the state is not registered. */
  #up: Set<Cpu> | null = null;
  #isAsleep = false;
  /** Outcome of TDH.SYS.INIT, which is called once whatever it answers; undefined before. */
  #globalInit: 'done' | KernelError | undefined;

  constructor(log: LogRing) {
    this.#log = log;
  }

  /** Registers the state: runs `online` on every online CPU. Throws what the first failing one throws. */
  register(cpus: readonly Cpu[]): void {
    this.#up = new Set();
    for (const cpu of onlineCpus(cpus)) this.online(cpu);
  }

  /** Every CPU leaves VMX operation until `resume`. Throws EBUSY when they have. */
  suspend(): void {
    if (this.#isAsleep) throw new KernelError('EBUSY', 'asleep', 'the host is asleep already');
    for (const cpu of this.#up ?? []) putVmx(cpu);
    this.#isAsleep = true;
  }

  /** Every CPU that was in VMX operation enters it again. Throws EINVAL when none had left it. */
  resume(): void {
    if (!this.#isAsleep) throw new KernelError('EINVAL', 'awake', 'the host is not asleep');
    for (const cpu of this.#up ?? []) getVmx(cpu);
    this.#isAsleep = false;
  }

  /** Removes the state: every CPU leaves it, whatever depends on it. */
  unregister(): void {
    if (!this.#isAsleep) for (const cpu of this.#up ?? []) putVmx(cpu);
    this.#isAsleep = false;
    this.#up = null;
  }

  /**
   * A CPU comes online: takes a VMX reference, initialises the module if nobody has, then this CPU if it never
   * was. Does nothing while unregistered. Throws the errno of what failed, without a VMX reference kept.
   */
  online(cpu: Cpu): void {
    if (this.#up === null) return;
    getVmx(cpu);
    try {
      this.#enable(cpu);
    } catch (error) {
      putVmx(cpu);
      throw error;
    }
    this.#up.add(cpu);
  }

  /**
   * A CPU goes offline: flushes its caches if TDX may have dirtied them and drops its VMX reference. While guests
   * hold KeyIDs every package needs an online CPU, to flush caches and reclaim keys: throws EBUSY.
   */
  offline(cpu: Cpu, cpus: readonly Cpu[], keyIds: KeyIdPool): void {
    if (this.#up === null) return;
    const { packageId } = cpu;
    const hasSibling = cpus.some((other) => other !== cpu && other.online && other.packageId === packageId);
    if (keyIds.current > 0 && !hasSibling) {
      this.#log.warn('every package needs an online CPU while TDs exist', 'last-cpu-of-package');
      throw new KernelError(
        'EBUSY',
        'last-cpu-of-package',
        `CPU ${cpu.index} is the last online CPU of package ${packageId}, and ${keyIds.current} guest KeyIDs are in use`,
        { cpu: cpu.index, package: packageId, keyIdsInUse: keyIds.current },
      );
    }
    if (cpu.cacheStateIncoherent) wbinvd(cpu);
    if (this.#up.delete(cpu)) putVmx(cpu);
  }

  /** State for a saved machine. */
  save() {
    const init = this.#globalInit;
    return {
      up: this.#up === null ? null : [...this.#up].map((cpu) => cpu.index),
      isAsleep: this.#isAsleep,
      globalInit: init instanceof KernelError ? { errno: init.errno, reason: init.reason } : init,
    };
  }

  /** Goes on from what `save` gave. */
  restore({ up, isAsleep, globalInit }: ReturnType<TdxCpuState['save']>, cpus: readonly Cpu[]): void {
    this.#isAsleep = isAsleep;
    this.#up = up === null ? null : new Set(up.map((index) => cpus[index]!));
    if (globalInit === undefined || globalInit === 'done') this.#globalInit = globalInit;
    else {
      const { code, text, data } = globalInit.reason;
      this.#globalInit = new KernelError(globalInit.errno, code, text, data);
    }
  }

  #enable(cpu: Cpu): void {
    if (cpu.lpInitialized) return;
    this.#globalInit ??= this.#initModule(cpu);
    if (this.#globalInit !== 'done') throw this.#globalInit;
    setOperands(cpu);
    seamcallPrerr(cpu, TDH.sysLpInit, this.#log);
    cpu.lpInitialized = true;
  }

  #initModule(cpu: Cpu): 'done' | KernelError {
    try {
      setOperands(cpu);
      seamcallPrerr(cpu, TDH.sysInit, this.#log);
      return 'done';
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      if (error.errno === 'ENODEV') this.#log.err('module not loaded', 'module-not-loaded');
      return error;
    }
  }
}
