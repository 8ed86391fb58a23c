/** What the kernel keeps per logical processor. */
import type { LogicalProcessor } from '../machine/lp.ts';

/** Virtual duration of a WBINVD that all CPUs execute at the same time. */
const WBINVD_NS = 2_000_000;

/** @public */
export class Cpu {
  readonly lp: LogicalProcessor;
  online = false;
  /** Users of VMX operation on this CPU; VMXON with the first, VMXOFF with the last. */
  vmxRefs = 0;
  /** Page frame of the VMXON region; null where it could not be allocated. */
  vmxonRegionPfn: number | null = null;
  /** TDH.SYS.LP.INIT succeeded; survives offlining, so a CPU that returns does not repeat it. */
  lpInitialized = false;
  /** Dirty private lines may be in the caches since the last WBINVD (set before every SEAMCALL). */
  cacheStateIncoherent = false;

  constructor(lp: LogicalProcessor) {
    this.lp = lp;
  }

  get index(): number {
    return this.lp.index;
  }

  get packageId(): number {
    return this.lp.package.id;
  }

  /** State for a saved machine. */
  save() {
    const { online, vmxRefs, vmxonRegionPfn, lpInitialized, cacheStateIncoherent } = this;
    return { online, vmxRefs, vmxonRegionPfn, lpInitialized, cacheStateIncoherent };
  }

  /** Goes on from what `save` gave. */
  restore(saved: ReturnType<Cpu['save']>): void {
    this.online = saved.online;
    this.vmxRefs = saved.vmxRefs;
    this.vmxonRegionPfn = saved.vmxonRegionPfn;
    this.lpInitialized = saved.lpInitialized;
    this.cacheStateIncoherent = saved.cacheStateIncoherent;
  }
}

/** Online CPUs in the order of their numbers. @public */
export function onlineCpus(cpus: readonly Cpu[]): readonly Cpu[] {
  return cpus.filter((cpu) => cpu.online);
}

/** The online CPU with the lowest number. Throws without one: a kernel that runs has it. @public */
export function firstOnline(cpus: readonly Cpu[]): Cpu {
  for (const cpu of cpus) if (cpu.online) return cpu;
  throw new Error('no CPU is online');
}

/** The first online CPU of every package that has one, in the order of the CPUs' numbers. @public */
export function firstOnlinePerPackage(cpus: readonly Cpu[]): readonly Cpu[] {
  const seen = new Set<number>();
  return cpus.filter((cpu) => {
    if (!cpu.online || seen.has(cpu.packageId)) return false;
    seen.add(cpu.packageId);
    return true;
  });
}

/** WBINVD on one CPU, which makes its cache state coherent. @public */
export function wbinvd(cpu: Cpu): void {
  cpu.lp.wbinvd();
  cpu.cacheStateIncoherent = false;
}

/** WBINVD on every online CPU, as before handing memory to the module and after taking it back. @public */
export function wbinvdAll(cpus: readonly Cpu[]): void {
  const online = onlineCpus(cpus);
  online[0]?.lp.machine.clock.advance(WBINVD_NS);
  for (const cpu of online) wbinvd(cpu);
}
