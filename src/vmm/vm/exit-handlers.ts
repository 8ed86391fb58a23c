/** What user space does about each exit of KVM_RUN. */
import { hex, PAGE_4K } from '../../abi/address.ts';
import { ERRNO, KernelError } from '../../abi/errno.ts';
import {
  KVM_EXIT,
  KVM_EXIT_IO,
  KVM_HC_MAP_GPA_RANGE,
  KVM_MAP_GPA_RANGE,
  KVM_MEMORY_EXIT_FLAG_PRIVATE,
  KVM_RUN_EXIT,
  KVM_SYSTEM_EVENT,
} from '../../abi/kvm/exits.ts';
import { answerTdvmcall } from './answer-tdvmcall.ts';
import type { WriteOutcome } from './devices.ts';
import { convertMemory, slotAt } from './guest-memory.ts';
import { writeUnion } from './guest-vcpu.ts';
import { callsOf, type ExitHandler, type VcpuEnd, type VcpuRun } from './vcpu-run.ts';

/** By exit reason. @internal */
export const EXIT_HANDLERS: ReadonlyMap<number, ExitHandler> = new Map<number, ExitHandler>([
  [KVM_EXIT.IO, portAccess],
  [KVM_EXIT.MMIO, mmioAccess],
  [KVM_EXIT.HYPERCALL, hypercall],
  [KVM_EXIT.MEMORY_FAULT, memoryFault],
  [KVM_EXIT.TDX, answerTdvmcall],
  [KVM_EXIT.INTR, () => null],
  [KVM_EXIT.HLT, () => ({ kind: 'halted', text: 'the guest halted, and nothing will wake it' })],
  [KVM_EXIT.SHUTDOWN, () => ({ kind: 'shutdown', text: 'the guest shut down after a triple fault' })],
  [KVM_EXIT.SYSTEM_EVENT, systemEvent],
  [KVM_EXIT.INTERNAL_ERROR, internalError],
  [KVM_EXIT.FAIL_ENTRY, failEntry],
]);

/** A port that no device has reads as all ones, and forgets what is written to it. */
async function portAccess(run: VcpuRun, union: Uint8Array): Promise<VcpuEnd | null> {
  const { direction, size, port, count, data_offset } = KVM_RUN_EXIT.IO.decode(union);
  const { calls } = callsOf(run);
  const address = run.vcpu.runAddress + Number(data_offset);
  const device = run.options.ports?.find(({ start, ports }) => start <= port && port < start + ports);
  const data = await calls.load(address, size * count);
  let outcome: WriteOutcome = 'on';
  for (let i = 0; i < count; i++) {
    const view = new DataView(data.buffer, data.byteOffset + i * size, size);
    if (direction === KVM_EXIT_IO.OUT) outcome = device?.out(port, readValue(view), size) ?? 'on';
    else writeValue(view, device?.in(port, size) ?? ALL_ONES);
  }
  if (direction === KVM_EXIT_IO.IN) await calls.store(address, data);
  return ENDS[outcome];
}

const ENDS: Readonly<Record<WriteOutcome, VcpuEnd | null>> = {
  on: null,
  off: { kind: 'power-off', text: 'the guest switched itself off' },
  stop: { kind: 'stopped', text: 'the guest waits for user space' },
};

const ALL_ONES = 0xffff_ffff;

function readValue(view: DataView): number {
  if (view.byteLength === 1) return view.getUint8(0);
  return view.byteLength === 2 ? view.getUint16(0, true) : view.getUint32(0, true);
}

function writeValue(view: DataView, value: number): void {
  if (view.byteLength === 1) view.setUint8(0, value);
  else if (view.byteLength === 2) view.setUint16(0, value, true);
  else view.setUint32(0, value, true);
}

/** Reads where no device is give all ones. */
async function mmioAccess(run: VcpuRun, union: Uint8Array): Promise<VcpuEnd | null> {
  const { phys_addr, data, len, is_write } = KVM_RUN_EXIT.MMIO.decode(union);
  const gpa = Number(phys_addr);
  const device = run.options.mmio?.find(({ start, end }) => start <= gpa && gpa + len <= end);
  const bytes = data.subarray(0, len);
  if (is_write !== 0) return ENDS[device?.write(gpa, bytes) ?? 'on'];
  if (device === undefined) bytes.fill(0xff);
  else device.read(gpa, bytes);
  KVM_RUN_EXIT.MMIO.patch(union, { data });
  await writeUnion(callsOf(run), run.vcpu, union);
  return null;
}

/** The guest asks for a conversion: done, to be tried again, or impossible. */
async function hypercall(run: VcpuRun, union: Uint8Array): Promise<VcpuEnd | null> {
  const { nr, args } = KVM_RUN_EXIT.HYPERCALL.decode(union);
  const [gpa = 0n, pages = 0n, attributes = 0n] = args;
  const ret =
    nr === BigInt(KVM_HC_MAP_GPA_RANGE) ? await mapGpaRange(run, gpa, pages, attributes) : ERRNO.EINVAL;
  KVM_RUN_EXIT.HYPERCALL.patch(union, { ret: BigInt(ret) });
  await writeUnion(callsOf(run), run.vcpu, union);
  return null;
}

async function mapGpaRange(
  { vm, options }: VcpuRun,
  gpa: bigint,
  pages: bigint,
  attributes: bigint,
): Promise<number> {
  const isPrivate = (attributes & KVM_MAP_GPA_RANGE.ENC_STAT) !== 0n;
  const start = Number(gpa);
  const end = start + Number(pages) * PAGE_4K;
  // Devices' addresses are shared anyway.
  if (slotAt(vm, start) === undefined) return isPrivate ? ERRNO.EINVAL : 0;
  try {
    await convertMemory(vm, { start, end }, isPrivate, options.discards ?? true);
    return 0;
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    return error.errno === 'EAGAIN' ? ERRNO.EAGAIN : ERRNO.EINVAL;
  }
}

/** The guest touched a page as what it is not, or one that there is no memory for. */
async function memoryFault(run: VcpuRun, union: Uint8Array): Promise<VcpuEnd | null> {
  const { vm, options, errno } = run;
  const { flags, gpa: address, size } = KVM_RUN_EXIT.MEMORY_FAULT.decode(union);
  const isPrivate = (flags & KVM_MEMORY_EXIT_FLAG_PRIVATE) !== 0n;
  const gpa = Number(address);
  const kind = isPrivate ? 'private' : 'shared';
  const key = `${kind} ${gpa}`;
  const canConvert = options.onFault === 'convert' && errno === 'EFAULT' && slotAt(vm, gpa) !== undefined;
  if (!canConvert || run.lastFault === key) {
    const text = `KVM_RUN ended with ${errno ?? 'a memory fault'}: the guest used ${kind} memory at guest physical address ${hex(gpa)}`;
    return { kind: 'memory-fault', text, detail: gpa };
  }
  run.lastFault = key;
  const range = { start: gpa, end: gpa + Number(size) };
  await convertMemory(vm, range, isPrivate, options.discards ?? true);
  return null;
}

const EVENT_NAMES = new Map<number, string>(
  Object.entries(KVM_SYSTEM_EVENT).map(([name, type]) => [type, name.toLowerCase().replaceAll('_', ' ')]),
);

function systemEvent(_run: VcpuRun, union: Uint8Array): VcpuEnd {
  const { type, ndata, data } = KVM_RUN_EXIT.SYSTEM_EVENT.decode(union);
  const shown = data.slice(0, ndata).filter((word) => word !== 0n);
  const with_ = shown.length === 0 ? '' : ` with ${shown.map(hex).join(', ')}`;
  if (type === KVM_SYSTEM_EVENT.SHUTDOWN) return ENDS.off!;
  const text = `the guest ended with the system event ${EVENT_NAMES.get(type) ?? type}${with_}`;
  return { kind: 'system-event', text, detail: type };
}

function internalError(_run: VcpuRun, union: Uint8Array): VcpuEnd {
  const { suberror, ndata, data } = KVM_RUN_EXIT.INTERNAL_ERROR.decode(union);
  const words = data.slice(0, ndata).map(hex).join(', ');
  const text = `KVM cannot go on with the guest: internal error ${suberror}${words === '' ? '' : ` (${words})`}`;
  return { kind: 'internal-error', text, detail: suberror };
}

function failEntry({ vcpu }: VcpuRun, union: Uint8Array): VcpuEnd {
  const { hardware_entry_failure_reason: reason } = KVM_RUN_EXIT.FAIL_ENTRY.decode(union);
  return { kind: 'fail-entry', text: `vCPU ${vcpu.index} cannot be entered: hardware reason ${hex(reason)}` };
}
