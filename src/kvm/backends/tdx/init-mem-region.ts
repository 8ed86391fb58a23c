/** KVM_TDX_INIT_MEM_REGION: pages of user space become the TD's first memory (Linux host rules 2.2). */
import { PAGE_4K, pfnOf } from '../../../abi/address.ts';
import { KernelError } from '../../../abi/errno.ts';
import { KVM_MEM } from '../../../abi/kvm/structs.ts';
import { KVM_TDX_INIT_MEM_REGION, KVM_TDX_MEASURE_MEMORY_REGION } from '../../../abi/kvm/tdx.ts';
import { TDH } from '../../../abi/leaves.ts';
import { STATUS } from '../../../abi/status-codes.ts';
import type { ValuesOf } from '../../../abi/struct.ts';
import type { Cpu } from '../../../kernel/cpu.ts';
import { UserFault } from '../../../kernel/process/system-calls.ts';
import type { Task } from '../../../kernel/process/task.ts';
import { isPrivateFrame } from '../../fault.ts';
import { GuestMemfdFile } from '../../guest-memfd/file.ts';
import type { Memslot } from '../../memslots.ts';
import { invalid, type TdxCommand } from './command.ts';
import { bugOn, tdCall } from './td-call.ts';
import type { TdxBackend } from './tdx-backend.ts';
import type { TdxVcpu } from './tdx-vcpu.ts';
import type { TrustDomain } from './trust-domain.ts';

type Region = ValuesOf<typeof KVM_TDX_INIT_MEM_REGION>;

const PAGE = BigInt(PAGE_4K);
const ALL = 1n << 64n;
/** Bytes that one MR.EXTEND measures. */
const EXTEND_BYTES = 256;

/** What is left of the region is written back, whatever ends it. @internal */
export async function initMemRegion(
  backend: TdxBackend,
  vcpu: TdxVcpu,
  task: Task,
  { flags, data }: TdxCommand,
): Promise<void> {
  const { td } = backend;
  if (!vcpu.initialized) throw invalid('vcpu-not-initialized', 'KVM_TDX_INIT_VCPU comes first');
  if ((flags & ~KVM_TDX_MEASURE_MEMORY_REGION) !== 0) {
    throw invalid('tdx-flags', 'KVM_TDX_INIT_MEM_REGION knows only the flag MEASURE', { flags });
  }
  const region = KVM_TDX_INIT_MEM_REGION.decode(await task.copyIn(data, KVM_TDX_INIT_MEM_REGION.bytes));
  checkRegion(td, region);
  const isMeasured = flags !== 0;
  const inOnePass = td.host.options.pageOrder === 'one-pass';
  const firstGpa = Number(region.gpa);
  try {
    while (region.nr_pages > 0n) {
      task.checkSignal();
      await addPage(backend, task, Number(region.gpa), Number(region.source_addr));
      if (isMeasured && inOnePass) extend(td, task.kernel.cpus[task.cpu]!, Number(region.gpa));
      region.source_addr += PAGE;
      region.gpa += PAGE;
      region.nr_pages--;
    }
  } finally {
    // Also where the call ends early: who goes on with the rest does not come back to these pages.
    if (isMeasured && !inOnePass && td.vm.bugged === null) {
      const cpu = task.kernel.cpus[task.cpu]!;
      for (let gpa = firstGpa; gpa < Number(region.gpa); gpa += PAGE_4K) extend(td, cpu, gpa);
    }
    await task.copyOut(data, KVM_TDX_INIT_MEM_REGION.encode(region));
  }
}

function checkRegion({ sharedBit }: TrustDomain, { source_addr, gpa, nr_pages }: Region): void {
  const end = BigInt.asUintN(64, gpa + nr_pages * PAGE);
  const shared = 1n << BigInt(sharedBit!);
  const isAligned = source_addr % PAGE === 0n && gpa % PAGE === 0n;
  const isPrivate = (gpa & shared) === 0n && (BigInt.asUintN(64, end - 1n) & shared) === 0n;
  if (isAligned && nr_pages !== 0n && end > gpa && nr_pages * PAGE < ALL && isPrivate) return;
  throw invalid('tdx-region', 'the region must be whole pages of private memory, from whole pages', {
    sourceAddress: source_addr,
    gpa,
    pages: nr_pages,
  });
}

/**
 * Throws EINVAL (no guest_memfd, not private), EFAULT (source, closed guest_memfd), EOPNOTSUPP (no source), EIO (mapped
 * already, and what must not fail), ENOMEM.
 */
async function addPage(backend: TdxBackend, task: Task, gpa: number, source: number): Promise<void> {
  const { vm } = backend.td;
  const gfn = pfnOf(gpa);
  const slot = vm.slots.find(gfn);
  if (slot === undefined || (slot.flags & KVM_MEM.GUEST_MEMFD) === 0) {
    throw invalid('no-gmem-slot', `no slot with a guest_memfd has 0x${gpa.toString(16)}`, { gpa });
  }
  const { backing } = slot;
  if (!(backing instanceof GuestMemfdFile)) {
    throw new KernelError('EFAULT', 'gmem-closed', `the guest_memfd of slot ${slot.id} was closed`, { gpa });
  }
  const sourcePfn = source === 0 ? null : await userPage(task, source);
  const { pageRefs } = vm.kernel;
  if (sourcePfn !== null) pageRefs.get(sourcePfn);
  try {
    await backing.populate(slot, gfn, task.lp.node, (pfn) => fill(backend, task, slot, gfn, pfn, sourcePfn));
  } finally {
    if (sourcePfn !== null) pageRefs.put(sourcePfn);
  }
}

async function userPage(task: Task, address: number): Promise<number> {
  try {
    return await task.process.memory.faultIn(address / PAGE_4K, false, task);
  } catch (error) {
    if (!(error instanceof UserFault)) throw error;
    throw new KernelError(
      'EFAULT',
      'source-missing',
      `there is no source page at 0x${address.toString(16)}`,
      {
        address,
      },
    );
  }
}

async function fill(
  { td, ept }: TdxBackend,
  task: Task,
  slot: Memslot,
  gfn: number,
  pfn: number,
  sourcePfn: number | null,
): Promise<void> {
  const { vm } = td;
  if (!isPrivateFrame(vm, slot, gfn)) {
    throw invalid('not-private', `guest frame ${gfn} is shared: set its attribute first`, { gfn });
  }
  if (sourcePfn === null) {
    throw new KernelError('EOPNOTSUPP', 'no-source', 'pages cannot be added as they are: a source is needed');
  }
  await vm.mmuLock.run(async () => {
    if (ept.mirror.pfn(gfn) !== undefined) {
      throw new KernelError('EIO', 'page-already-added', `guest frame ${gfn} is mapped already`, { gfn });
    }
    const cpu = task.kernel.cpus[task.cpu]!;
    cpu.lp.clflushPage(sourcePfn * PAGE_4K);
    while (ept.add(cpu, gfn, pfn, sourcePfn * PAGE_4K) === 'retry') {
      task.checkSignal();
      if (vm.bugged !== null) throw vm.bug(vm.bugged);
      await (vm.kernel.schedule?.('populate') ?? Promise.resolve());
    }
  });
}

/** MR.EXTEND of a whole page. */
function extend(td: TrustDomain, cpu: Cpu, gpa: number): void {
  for (let at = gpa; at < gpa + PAGE_4K; at += EXTEND_BYTES) {
    const status = tdCall(cpu, TDH.mrExtend, at, td.tdr);
    if (status !== STATUS.TDX_SUCCESS) throw bugOn(td.vm, TDH.mrExtend, status, { gpa: at });
  }
}
