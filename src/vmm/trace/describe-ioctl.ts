/** ioctls of KVM in words: name of the request, and its argument taken apart. */
import { hex } from '../../abi/address.ts';
import { KVM_CAP } from '../../abi/kvm/capabilities.ts';
import { KVM } from '../../abi/kvm/ioctl.ts';
import {
  GUEST_MEMFD_FLAG,
  KVM_CPUID2,
  KVM_CREATE_GUEST_MEMFD,
  KVM_ENABLE_CAP,
  KVM_MEM,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_MEMORY_ATTRIBUTES,
  KVM_MEMORY_ATTRIBUTES2,
  KVM_PRE_FAULT_MEMORY,
  KVM_REGS,
  KVM_USERSPACE_MEMORY_REGION,
  KVM_USERSPACE_MEMORY_REGION2,
} from '../../abi/kvm/structs.ts';
import { KVM_VM_TYPE } from '../../abi/kvm/vm-types.ts';
import type { UserArg } from '../../kernel/process/system-calls.ts';
import { type CommandTechnology, describeCommand } from './describe-command.ts';
import { flagNames, nameOf } from './flag-names.ts';

type Describe = (bytes: Uint8Array) => string;

/** Requests that take a structure, and what of it tells something. */
const STRUCTURES: ReadonlyMap<number, Describe> = new Map<number, Describe>([
  [KVM.GET_SUPPORTED_CPUID, cpuid],
  [KVM.SET_CPUID2, cpuid],
  [KVM.GET_CPUID2, cpuid],
  [KVM.ENABLE_CAP, enableCap],
  [KVM.CREATE_GUEST_MEMFD, createGuestMemfd],
  [KVM.SET_USER_MEMORY_REGION, memoryRegion],
  [KVM.SET_USER_MEMORY_REGION2, memoryRegion2],
  [KVM.SET_MEMORY_ATTRIBUTES, memoryAttributes],
  [KVM.SET_MEMORY_ATTRIBUTES2, memoryAttributes2],
  [KVM.PRE_FAULT_MEMORY, preFault],
  [KVM.SET_REGS, (bytes) => `{rip=${hex(KVM_REGS.decode(bytes).rip)}, ...}`],
]);

/** Requests that take a value, and its meaning. */
const VALUES: ReadonlyMap<number, (value: number) => string> = new Map([
  [KVM.CREATE_VM, (value: number) => nameOf('KVM_VM_TYPE_', KVM_VM_TYPE, value)],
  [KVM.CHECK_EXTENSION, (value: number) => nameOf('KVM_CAP_', KVM_CAP, value)],
  [KVM.CREATE_VCPU, String],
]);

/** `KVM_CREATE_VM`. @internal */
export function requestName(request: number): string {
  return nameOf('KVM_', KVM, request);
}

/**
 * The argument; empty where there is none. `technology` tells whose commands KVM_MEMORY_ENCRYPT_OP takes, `behind` is the
 * structure that a command points to.
 * @internal
 */
export function describeArgument(
  request: number,
  arg: UserArg | undefined,
  technology: CommandTechnology,
  behind: string | undefined,
): string {
  if (arg === undefined) return '';
  if (!(arg instanceof Uint8Array)) return VALUES.get(request)?.(Number(arg)) ?? hex(arg);
  if (request === KVM.MEMORY_ENCRYPT_OP) return describeCommand(arg, technology, behind);
  return STRUCTURES.get(request)?.(arg) ?? `{${arg.length} bytes}`;
}

function cpuid(bytes: Uint8Array): string {
  return `{nent=${KVM_CPUID2.decode(bytes).nent}}`;
}

function enableCap(bytes: Uint8Array): string {
  const { cap, args } = KVM_ENABLE_CAP.decode(bytes);
  return `{cap=${nameOf('KVM_CAP_', KVM_CAP, cap)}, args=[${hex(args[0]!)}]}`;
}

function createGuestMemfd(bytes: Uint8Array): string {
  const { size, flags } = KVM_CREATE_GUEST_MEMFD.decode(bytes);
  return `{size=${hex(size)}, flags=${flagNames('GUEST_MEMFD_FLAG_', GUEST_MEMFD_FLAG, flags)}}`;
}

function memoryRegion(bytes: Uint8Array): string {
  const { slot, flags, guest_phys_addr, memory_size, userspace_addr } =
    KVM_USERSPACE_MEMORY_REGION.decode(bytes);
  return (
    `{slot=${slot}, flags=${flagNames('KVM_MEM_', KVM_MEM, flags)}, guest_phys_addr=${hex(guest_phys_addr)}, ` +
    `memory_size=${hex(memory_size)}, userspace_addr=${hex(userspace_addr)}}`
  );
}

function memoryRegion2(bytes: Uint8Array): string {
  const { guest_memfd, guest_memfd_offset } = KVM_USERSPACE_MEMORY_REGION2.decode(bytes);
  const common = memoryRegion(bytes).slice(0, -1);
  return `${common}, guest_memfd=${guest_memfd}, guest_memfd_offset=${hex(guest_memfd_offset)}}`;
}

function attributeNames(attributes: bigint): string {
  return flagNames('KVM_MEMORY_ATTRIBUTE_', { PRIVATE: KVM_MEMORY_ATTRIBUTE_PRIVATE }, attributes);
}

function memoryAttributes(bytes: Uint8Array): string {
  const { address, size, attributes } = KVM_MEMORY_ATTRIBUTES.decode(bytes);
  return `{address=${hex(address)}, size=${hex(size)}, attributes=${attributeNames(attributes)}}`;
}

function memoryAttributes2(bytes: Uint8Array): string {
  const { offset, size, attributes } = KVM_MEMORY_ATTRIBUTES2.decode(bytes);
  return `{offset=${hex(offset)}, size=${hex(size)}, attributes=${attributeNames(attributes)}}`;
}

function preFault(bytes: Uint8Array): string {
  const { gpa, size } = KVM_PRE_FAULT_MEMORY.decode(bytes);
  return `{gpa=${hex(gpa)}, size=${hex(size)}}`;
}
