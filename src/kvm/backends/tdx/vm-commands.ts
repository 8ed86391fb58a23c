/** KVM_MEMORY_ENCRYPT_OP on a TD's VM: CAPABILITIES, INIT_VM, FINALIZE_VM, and TERMINATE_VM where it is offered. */
import { KernelError } from '../../../abi/errno.ts';
import { KVM_CPUID_ENTRY2, KVM_CPUID2, KVM_MAX_CPUID_ENTRIES } from '../../../abi/kvm/structs.ts';
import { KVM_TDX, KVM_TDX_CAPABILITIES, KVM_TDX_CMD, KVM_TDX_INIT_VM } from '../../../abi/kvm/tdx.ts';
import { TDH } from '../../../abi/leaves.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import type { UserArg } from '../../../kernel/process/system-calls.ts';
import type { Task } from '../../../kernel/process/task.ts';
import { encodeCapabilities } from './capabilities.ts';
import { invalid, readCommand, type TdxCommand, withVmState } from './command.ts';
import { createTd, ModuleRefusal } from './create-td.ts';
import { readTdField, TD_FIELD } from './metadata.ts';
import { bugOn, isBusy, tdCall } from './td-call.ts';
import { setUpTd } from './td-params.ts';
import type { TdxBackend } from './tdx-backend.ts';
import { SHARED_BIT_4_LEVEL, SHARED_BIT_5_LEVEL } from './trust-domain.ts';

/** Number of KVM_TDX_TERMINATE_VM in the proposal of 2025: the next after GET_CPUID. @public */
export const KVM_TDX_TERMINATE_VM = 6;

/** @internal */
export async function vmCommand(backend: TdxBackend, task: Task, arg: UserArg): Promise<number> {
  const command = await readCommand(task, arg);
  if (command.id === KVM_TDX.CAPABILITIES) return capabilities(backend, task, command);
  await withVmState(backend.td.vm, async () => {
    const run = COMMANDS.get(command.id);
    const isOffered = command.id !== KVM_TDX_TERMINATE_VM || backend.td.host.options.terminateVm;
    if (run === undefined || !isOffered) {
      throw invalid('tdx-command', `there is no TDX command ${command.id} for a VM`, { id: command.id });
    }
    try {
      await run(backend, task, command);
    } finally {
      await task.copyOut(arg, KVM_TDX_CMD.encode(command));
    }
  });
  return 0;
}

type VmCommand = (backend: TdxBackend, task: Task, command: TdxCommand) => Promise<void>;

const COMMANDS: ReadonlyMap<number, VmCommand> = new Map([
  [KVM_TDX.INIT_VM, initVm],
  [KVM_TDX.FINALIZE_VM, finalizeVm],
  [KVM_TDX_TERMINATE_VM, terminateVm],
]);

/** Nothing is written where the user's buffer is too short. */
async function capabilities(
  { td: { host } }: TdxBackend,
  task: Task,
  { flags, data }: TdxCommand,
): Promise<number> {
  if (flags !== 0) throw invalid('tdx-flags', 'KVM_TDX_CAPABILITIES takes no flags', { flags });
  const { offsets } = KVM_TDX_CAPABILITIES;
  const { nent } = KVM_CPUID2.decode(await task.copyIn(data, KVM_CPUID2.bytes, offsets.cpuid));
  const needed = host.sysinfo.tdConf.numCpuidConfig;
  if (nent < needed) {
    throw new KernelError('E2BIG', 'cpuid-too-short', `there are ${needed} configurable CPUID leaves`, {
      nent,
      needed,
    });
  }
  await task.copyOut(data, encodeCapabilities(host.sysinfo, task.lp));
  return 0;
}

async function initVm(backend: TdxBackend, task: Task, command: TdxCommand): Promise<void> {
  const { td } = backend;
  if (td.state !== 'uninitialized') throw invalid('td-exists', 'KVM_TDX_INIT_VM has been done');
  if (command.flags !== 0)
    throw invalid('tdx-flags', 'KVM_TDX_INIT_VM takes no flags', { flags: command.flags });
  const request = await readInitVm(task, command.data);
  // Where the thread is now: it may have slept for locks and for the request.
  const cpu = task.kernel.cpus[task.cpu]!;
  const setup = setUpTd(td.vm, td.host, cpu.lp, request);
  try {
    await createTd(td, cpu, setup.params);
  } catch (error) {
    if (error instanceof ModuleRefusal) command.hw_error = error.status;
    throw error;
  }
  td.tscOffset = readTdField(td, cpu, TD_FIELD.TSC_OFFSET) ?? 0n;
  td.tscMultiplier = readTdField(td, cpu, TD_FIELD.TSC_MULTIPLIER) ?? 0n;
  td.attributes = setup.attributes;
  td.xfam = setup.xfam;
  td.sharedBit = setup.isWide ? SHARED_BIT_5_LEVEL : SHARED_BIT_4_LEVEL;
  td.state = 'initialized';
  td.vm.files.advance('populating');
}

/** struct kvm_tdx_init_vm with its entries, checked as far as the kernel does before it looks at the contents. */
async function readInitVm(task: Task, data: bigint): Promise<Uint8Array> {
  const { offsets, bytes: headBytes } = KVM_TDX_INIT_VM;
  const { nent } = KVM_CPUID2.decode(await task.copyIn(data, KVM_CPUID2.bytes, offsets.cpuid));
  if (nent > KVM_MAX_CPUID_ENTRIES) {
    throw new KernelError('E2BIG', 'cpuid-too-long', `more than ${KVM_MAX_CPUID_ENTRIES} CPUID entries`, {
      nent,
    });
  }
  const bytes = await task.copyIn(data, headBytes + nent * KVM_CPUID_ENTRY2.bytes);
  const { reserved, cpuid } = KVM_TDX_INIT_VM.decode(bytes);
  if (reserved.some((word) => word !== 0n)) throw invalid('tdx-reserved', 'reserved words are not zero');
  if (cpuid.padding !== 0 || cpuid.nent !== nent) {
    throw invalid(
      'cpuid-changed',
      'the CPUID padding is not zero, or the number of entries changed meanwhile',
    );
  }
  return bytes;
}

async function finalizeVm({ td }: TdxBackend, task: Task, command: TdxCommand): Promise<void> {
  if (!td.hasKeyId || td.state === 'runnable') {
    throw invalid('td-not-being-built', `the TD is ${td.state}; only one being built can be finalised`);
  }
  const status = tdCall(task.kernel.cpus[task.cpu]!, TDH.mrFinalize, td.tdr);
  command.hw_error = status;
  if (isBusy(status)) throw new KernelError('EBUSY', 'td-busy', 'the module is busy with the TD; try again');
  if (status !== STATUS.TDX_SUCCESS) throw bugOn(td.vm, TDH.mrFinalize, status);
  td.state = 'runnable';
  td.vm.files.advance('sealed');
}

/** The VM is dead from here on, and its pages can be reclaimed without blocking and tracking each. */
async function terminateVm(backend: TdxBackend, _task: Task, { flags }: TdxCommand): Promise<void> {
  if (flags !== 0) throw invalid('tdx-flags', 'KVM_TDX_TERMINATE_VM takes no flags', { flags });
  backend.td.vm.bug('user space terminated the TD');
  await backend.releaseKeyId();
}
