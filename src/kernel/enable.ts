/** Initialisation of the TDX module, stage by stage (Linux host rules 1.2, 1.3), undone on any failure. */
import { KernelError } from '../abi/errno.ts';
import type { Machine } from '../machine/machine.ts';
import type { PageAllocator } from './allocator.ts';
import { allocTdmrList, freeTable, sysConfig, writeTdmrList } from './config.ts';
import { type Cpu, onlineCpus } from './cpu.ts';
import type { TdxCpuState } from './cpu-hotplug.ts';
import type { Detection } from './detect.ts';
import { dynamicPamtObstacle } from './dynamic-pamt.ts';
import { configureGlobalKeyId } from './key-config.ts';
import type { LogRing } from './log.ts';
import type { MemblockRegion } from './memblock.ts';
import { buildTdxMemlist, type TdxMemoryBlock } from './memlist.ts';
import { allocPamts, freePamts, pamtBytes } from './pamt-alloc.ts';
import type { KernelPolicy } from './policy/kernel-policy.ts';
import type { SchedulingPoint } from './scheduling.ts';
import type { StageList, StageName } from './stages.ts';
import { checkFeatures, logSysinfo, readSysinfo, type TdxSysinfo } from './sysinfo.ts';
import { attachReservedAreas, fillOutTdmrs, type Tdmr } from './tdmr.ts';
import { initTdmr } from './tdmr-init.ts';
import { resetPamts, shutDownModule, UndoStack } from './undo.ts';

/** What initialisation works with. @internal */
export interface EnableContext {
  readonly machine: Machine;
  readonly cpus: readonly Cpu[];
  readonly cpuState: TdxCpuState;
  readonly allocator: PageAllocator;
  readonly memblock: () => readonly MemblockRegion[];
  /** Memory was hot-added before. */
  readonly memoryAdded: () => boolean;
  readonly policy: KernelPolicy;
  readonly detection: Detection;
  readonly stages: StageList;
  readonly log: LogRing;
  readonly schedule: () => SchedulingPoint | null;
  /** Gives back memory that was set aside for PAMTs. */
  readonly releaseReservation: () => void;
  /** Told as soon as the module has been asked: it stays known when a later stage fails. */
  readonly onSysinfo: (info: TdxSysinfo) => void;
}

/** An initialised TDX host. @public */
export interface EnabledTdx {
  readonly memlist: readonly TdxMemoryBlock[];
  readonly tdmrs: readonly Tdmr[];
  readonly dynamicPamt: boolean;
  readonly pamtKb: number;
}

/**
 * Runs every stage from `platform` on. Throws the KernelError of the first that fails, its data naming the
 * `stage`, after undoing everything: no memory and no VMX reference is kept.
 * @internal
 */
export async function enableTdx(context: EnableContext): Promise<EnabledTdx> {
  const undo = new UndoStack();
  try {
    return await runStages(context, undo);
  } catch (error) {
    // Anything else, such as a machine check, takes the kernel down; there is nothing left to tidy.
    if (!(error instanceof KernelError)) throw error;
    if (context.policy.onError === 'shutdown') shutDownModule(context.cpus);
    undo.unwind();
    context.log.err(`TDX-Module initialization failed (${error.number})`, error.reason.code);
    throw error;
  }
}

async function runStages(context: EnableContext, undo: UndoStack): Promise<EnabledTdx> {
  const { cpus, allocator, policy, detection, stages, log } = context;
  const warn = (text: string, code: string): void => log.warn(text, code);
  const run = async <T>(name: StageName, work: () => T | Promise<T>): Promise<T> => {
    await context.schedule()?.(name);
    return stages.run(name, work);
  };

  await run('platform', () => checkPlatform(context));
  undo.push(() => context.cpuState.unregister());
  await run('cpus', () => context.cpuState.register(cpus));
  // Asked anew by every stage: between two of them the CPU may go offline, and the thread goes on elsewhere.
  const cpu = (): Cpu => onlineCpus(cpus)[0]!;
  const info = await run('sysinfo', () => readSysinfo(cpu(), log, policy.trustCmrCount));
  context.onSysinfo(info);
  logSysinfo(info, log);
  await run('features', () => checkFeatures(info, log));
  const dynamicPamt = usesDynamicPamt(info, context);

  const memlist = await run('memlist', () =>
    buildTdxMemlist(
      { memblock: context.memblock(), cmrs: info.cmrs, srat: context.machine.description.srat },
      policy,
    ),
  );
  const list = await run('tdmr-list', () => allocTdmrList(cpu(), allocator, info.tdmr));
  undo.push(() => freeTable(allocator, list));
  const ranges = await run('tdmrs', () => fillOutTdmrs(memlist, info.tdmr.maxTdmrs, warn));
  const pamts = await run('pamts', () => {
    context.releaseReservation();
    return allocPamts(ranges, memlist, info.tdmr, dynamicPamt, allocator, warn, policy.pamtPlacement);
  });
  undo.push(() => freePamts(pamts, allocator));
  const tdmrs = await run('reserved-areas', () =>
    attachReservedAreas(ranges, pamts, {
      memlist,
      cmrs: info.cmrs,
      holes: policy.holes,
      limits: info.tdmr,
      warn,
    }),
  );

  await run('config', () => {
    writeTdmrList(cpu(), list, tdmrs);
    sysConfig(cpu(), allocator, list, tdmrs.length, detection.globalKeyId, dynamicPamt, log);
  });
  undo.push(() => resetPamts(cpus, pamts, detection.errata.partialWriteMce));
  await run('key-config', () => configureGlobalKeyId(cpus, log));
  await run('tdmr-init', async () => {
    for (const tdmr of tdmrs) await initTdmr(cpus, tdmr, log, context.schedule());
  });

  const pamtKb = pamts.reduce((sum, pamt) => sum + pamtBytes(pamt), 0) / 1024;
  log.info(`${pamtKb} KB allocated for PAMT`, 'pamt-kb');
  log.info('TDX-Module initialized', 'initialized');
  return { memlist, tdmrs, dynamicPamt, pamtKb };
}

/** A CPUID bit without which the module cannot be used. */
interface RequiredFeature {
  readonly name: string;
  readonly leaf: number;
  /** Index into EAX, EBX, ECX, EDX. */
  readonly register: 0 | 1 | 2 | 3;
  readonly bit: number;
  readonly errno: 'EINVAL' | 'ENODEV';
}

/** In the kernel's order of checks. */
const REQUIRED: readonly RequiredFeature[] = [
  { name: 'XSAVE', leaf: 1, register: 2, bit: 26, errno: 'EINVAL' },
  { name: 'MOVDIR64B', leaf: 7, register: 2, bit: 28, errno: 'EINVAL' },
  { name: 'self-snoop', leaf: 1, register: 3, bit: 27, errno: 'ENODEV' },
];

function checkPlatform({ cpus, policy, memoryAdded, log }: EnableContext): void {
  const { lp } = cpus[0]!;
  for (const { name, leaf, register, bit, errno } of REQUIRED) {
    if (((lp.cpuid(leaf, 0)[register] >>> bit) & 1) === 1) continue;
    log.err(`${name} is required`, 'cpu-feature-missing');
    throw new KernelError(errno, 'cpu-feature-missing', `the CPU lacks ${name}, which TDX requires`, {
      feature: name,
    });
  }
  if (policy.hotplug === 'winner-takes-all' && memoryAdded()) {
    throw new KernelError(
      'EBUSY',
      'memory-hot-added',
      'memory was hot-added before TDX was enabled, and the policy is that the first wins',
    );
  }
}

/** Wanted by the policy, and nothing keeps it from being used. */
function usesDynamicPamt(info: TdxSysinfo, { policy, machine, log }: EnableContext): boolean {
  if (!policy.dynamicPamt) return false;
  const obstacle = dynamicPamtObstacle(info.features.features0, machine.keyIdStartBit);
  if (obstacle !== null) log.warn(`Dynamic PAMT not used: ${obstacle}`, 'dynamic-pamt-unavailable');
  return obstacle === null;
}
