/** KVM_MEMORY_ENCRYPT_OP on a TD, its structures in user space's memory. */
import { KernelError } from '../../abi/errno.ts';
import { KVM } from '../../abi/kvm/ioctl.ts';
import { KVM_CPUID_ENTRY2 } from '../../abi/kvm/structs.ts';
import {
  KVM_TDX,
  KVM_TDX_CAPABILITIES,
  KVM_TDX_CMD,
  KVM_TDX_INIT_MEM_REGION,
  KVM_TDX_INIT_VM,
  KVM_TDX_MEASURE_MEMORY_REGION,
  type KvmTdxCommandName,
} from '../../abi/kvm/tdx.ts';
import { formatStatus } from '../../abi/status.ts';
import type { ValuesOf } from '../../abi/struct.ts';
import type { SystemCalls } from '../../kernel/process/system-calls.ts';
import { type CpuidEntry, readEntries, withEntries } from './cpuid.ts';
import { doing } from './doing.ts';
import { withBuffer } from './user-memory.ts';

/** Entries that there is room for when user space asks how many there are. */
const CPUID_ENTRIES = 256;

/** A command on the descriptor of a VM or vCPU. Throws KernelError, with the module's status where there is one. @public */
export async function tdxCommand(
  calls: SystemCalls,
  fd: number,
  name: KvmTdxCommandName,
  data: number,
  flags = 0,
): Promise<void> {
  const command = KVM_TDX_CMD.encode({ id: KVM_TDX[name], flags, data: BigInt(data) });
  try {
    await doing(`KVM_TDX_${name}`, () => calls.ioctl(fd, KVM.MEMORY_ENCRYPT_OP, command));
  } catch (error) {
    const { hw_error } = KVM_TDX_CMD.decode(command);
    if (!(error instanceof KernelError) || hw_error === 0n) throw error;
    const { code, text, data: facts } = error.reason;
    throw new KernelError(error.errno, code, `${text}; the module said ${formatStatus(hw_error)}`, {
      ...facts,
    });
  }
}

/** What KVM lets TDs have. @public */
export interface TdCapabilities {
  readonly attributes: bigint;
  readonly xfam: bigint;
  /** Configurable leaves, with the bits that may be set. */
  readonly cpuid: readonly CpuidEntry[];
}

/** KVM_TDX_CAPABILITIES. @public */
export function tdCapabilities(calls: SystemCalls, vm: number): Promise<TdCapabilities> {
  const { offsets, bytes } = KVM_TDX_CAPABILITIES;
  const buffer = new Uint8Array(bytes + CPUID_ENTRIES * KVM_CPUID_ENTRY2.bytes);
  KVM_TDX_CAPABILITIES.patch(buffer, { cpuid: { nent: CPUID_ENTRIES, padding: 0 } });
  return withBuffer(calls, buffer, async (address) => {
    await tdxCommand(calls, vm, 'CAPABILITIES', address);
    const answer = await calls.load(address, buffer.length);
    const { supported_attrs, supported_xfam } = KVM_TDX_CAPABILITIES.decode(answer);
    return { attributes: supported_attrs, xfam: supported_xfam, cpuid: readEntries(answer, offsets.cpuid) };
  });
}

/** KVM_TDX_INIT_VM. @public */
export function initTd(
  calls: SystemCalls,
  vm: number,
  values: Omit<Partial<ValuesOf<typeof KVM_TDX_INIT_VM>>, 'cpuid' | 'reserved'>,
  cpuid: readonly CpuidEntry[],
): Promise<void> {
  const head = KVM_TDX_INIT_VM.encode({ ...values, cpuid: { nent: cpuid.length, padding: 0 } });
  return withBuffer(calls, withEntries(head, cpuid), (address) => tdxCommand(calls, vm, 'INIT_VM', address));
}

/** Pages of user space that become a TD's first memory. @public */
export interface MemRegion {
  readonly gpa: number;
  readonly pages: number;
  /** Address of the first page's contents. */
  readonly source: number;
  readonly measure: boolean;
}

/** KVM_TDX_INIT_MEM_REGION, taken up again where a signal or a busy module left off. @public */
export function initMemRegion(calls: SystemCalls, vcpu: number, region: MemRegion): Promise<void> {
  const bytes = KVM_TDX_INIT_MEM_REGION.encode({
    source_addr: BigInt(region.source),
    gpa: BigInt(region.gpa),
    nr_pages: BigInt(region.pages),
  });
  const flags = region.measure ? KVM_TDX_MEASURE_MEMORY_REGION : 0;
  // The kernel writes back what is left, so that the same call goes on.
  return withBuffer(calls, bytes, async (address) => {
    for (;;) {
      try {
        return await tdxCommand(calls, vcpu, 'INIT_MEM_REGION', address, flags);
      } catch (error) {
        if (!(error instanceof KernelError) || (error.errno !== 'EINTR' && error.errno !== 'EAGAIN'))
          throw error;
      }
    }
  });
}
