/** KVM_MEMORY_ENCRYPT_OP in words: the command, and the structure that it points to. */
import { hex } from '../../abi/address.ts';
import { KVM } from '../../abi/kvm/ioctl.ts';
import {
  KVM_SEV,
  KVM_SEV_CMD,
  KVM_SEV_SNP_LAUNCH_START,
  KVM_SEV_SNP_LAUNCH_UPDATE,
  KVM_SEV_SNP_PAGE_TYPE,
} from '../../abi/kvm/sev.ts';
import {
  KVM_TDX,
  KVM_TDX_CMD,
  KVM_TDX_INIT_MEM_REGION,
  KVM_TDX_INIT_VM,
  KVM_TDX_MEASURE_MEMORY_REGION,
} from '../../abi/kvm/tdx.ts';
import { formatStatus } from '../../abi/status.ts';
import type { UserArg } from '../../kernel/process/system-calls.ts';
import { nameOf } from './flag-names.ts';

/** Whose commands a VM takes. @internal */
export type CommandTechnology = 'tdx' | 'sev';

interface Pointed {
  readonly lengthBytes: number;
  readonly describe: (bytes: Uint8Array) => string;
}

const TDX_STRUCTURES: ReadonlyMap<number, Pointed> = new Map([
  [KVM_TDX.INIT_VM, { lengthBytes: KVM_TDX_INIT_VM.bytes, describe: initVm }],
  [KVM_TDX.INIT_MEM_REGION, { lengthBytes: KVM_TDX_INIT_MEM_REGION.bytes, describe: initMemRegion }],
]);

const SEV_STRUCTURES: ReadonlyMap<number, Pointed> = new Map([
  [KVM_SEV.SNP_LAUNCH_START, { lengthBytes: KVM_SEV_SNP_LAUNCH_START.bytes, describe: launchStart }],
  [KVM_SEV.SNP_LAUNCH_UPDATE, { lengthBytes: KVM_SEV_SNP_LAUNCH_UPDATE.bytes, describe: launchUpdate }],
]);

/** The structure that a command points to, where it is one that tells something. @internal */
export function pointerIn(
  request: number,
  arg: UserArg | undefined,
  technology: CommandTechnology,
): (Pointed & { readonly address: number }) | null {
  if (request !== KVM.MEMORY_ENCRYPT_OP || !(arg instanceof Uint8Array)) return null;
  const { id, data } = technology === 'tdx' ? KVM_TDX_CMD.decode(arg) : KVM_SEV_CMD.decode(arg);
  const found = (technology === 'tdx' ? TDX_STRUCTURES : SEV_STRUCTURES).get(id);
  return found === undefined ? null : { ...found, address: Number(data) };
}

/** `{id=KVM_TDX_INIT_MEM_REGION, data={gpa=0x800000, ...}}`. @internal */
export function describeCommand(
  bytes: Uint8Array,
  technology: CommandTechnology,
  behind: string | undefined,
): string {
  return technology === 'tdx' ? tdxCommand(bytes, behind) : sevCommand(bytes, behind);
}

function tdxCommand(bytes: Uint8Array, behind: string | undefined): string {
  const { id, flags, data, hw_error } = KVM_TDX_CMD.decode(bytes);
  const flag = flags === KVM_TDX_MEASURE_MEMORY_REGION ? ', flags=KVM_TDX_MEASURE_MEMORY_REGION' : '';
  const error = hw_error === 0n ? '' : `, hw_error=${formatStatus(hw_error)}`;
  return `{id=${nameOf('KVM_TDX_', KVM_TDX, id)}${flag}, data=${behind ?? hex(data)}${error}}`;
}

function sevCommand(bytes: Uint8Array, behind: string | undefined): string {
  const { id, data, error, sev_fd } = KVM_SEV_CMD.decode(bytes);
  const told = error === 0 ? '' : `, error=${hex(error)}`;
  return `{id=${nameOf('KVM_SEV_', KVM_SEV, id)}, data=${behind ?? hex(data)}, sev_fd=${sev_fd}${told}}`;
}

function initVm(bytes: Uint8Array): string {
  const { attributes, xfam, cpuid } = KVM_TDX_INIT_VM.decode(bytes);
  return `{attributes=${hex(attributes)}, xfam=${hex(xfam)}, nent=${cpuid.nent}}`;
}

function initMemRegion(bytes: Uint8Array): string {
  const { source_addr, gpa, nr_pages } = KVM_TDX_INIT_MEM_REGION.decode(bytes);
  return `{source_addr=${hex(source_addr)}, gpa=${hex(gpa)}, nr_pages=${nr_pages}}`;
}

function launchStart(bytes: Uint8Array): string {
  return `{policy=${hex(KVM_SEV_SNP_LAUNCH_START.decode(bytes).policy)}}`;
}

function launchUpdate(bytes: Uint8Array): string {
  const { gfn_start, uaddr, len, type } = KVM_SEV_SNP_LAUNCH_UPDATE.decode(bytes);
  const name = nameOf('KVM_SEV_SNP_PAGE_TYPE_', KVM_SEV_SNP_PAGE_TYPE, type);
  return `{gfn_start=${hex(gfn_start)}, uaddr=${hex(uaddr)}, len=${hex(len)}, type=${name}}`;
}
