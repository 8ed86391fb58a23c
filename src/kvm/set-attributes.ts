/** KVM_SET_MEMORY_ATTRIBUTES, in the kernel's order of checks (Linux host rules 3.5). */
import { hex, PAGE_4K } from '../abi/address.ts';
import { KernelError } from '../abi/errno.ts';
import { KVM_MEMORY_ATTRIBUTE_PRIVATE, KVM_MEMORY_ATTRIBUTES } from '../abi/kvm/structs.ts';
import type { UserArg } from '../kernel/process/system-calls.ts';
import type { Task } from '../kernel/process/task.ts';
import type { Vm } from './vm.ts';

const PAGE = BigInt(PAGE_4K);
const ADDRESS_END = 1n << 64n;

/** Attributes that a VM may set: what KVM_CAP_MEMORY_ATTRIBUTES reports for it. @public */
export function supportedAttributes({ backend, options }: Vm): bigint {
  return backend.hasPrivateMemory && !options.inPlaceConversion ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n;
}

/** @public */
export async function setMemoryAttributes(vm: Vm, arg: UserArg, task: Task): Promise<number> {
  if (vm.options.inPlaceConversion) {
    const text = 'attributes belong to guest_memfds, with gmem_in_place_conversion';
    throw new KernelError('ENOTTY', 'attributes-in-files', text);
  }
  const request = KVM_MEMORY_ATTRIBUTES.decode(await task.copyIn(arg, KVM_MEMORY_ATTRIBUTES.bytes));
  const { address, size, attributes, flags } = request;
  const invalid = (code: string, text: string): KernelError => new KernelError('EINVAL', code, text, request);
  const supported = supportedAttributes(vm);
  if (flags !== 0n) throw invalid('attributes-flags', 'KVM_SET_MEMORY_ATTRIBUTES takes no flags');
  if ((attributes & ~supported) !== 0n) {
    throw invalid(
      'attributes-unknown',
      `the VM has the attributes ${hex(supported)}, not ${hex(attributes)}`,
    );
  }
  if (size === 0n || address + size >= ADDRESS_END) {
    throw invalid('attributes-range', 'the range must not be empty and must not wrap');
  }
  if (address % PAGE !== 0n || size % PAGE !== 0n) {
    throw invalid('attributes-unaligned', 'address and size must be multiples of 4 KiB');
  }
  await changeAttributes(vm, Number(address / PAGE), Number((address + size) / PAGE), attributes);
  return 0;
}

/** Gives guest frames attributes: mappings of the other kind go, and none is made until the attributes are there. */
async function changeAttributes(vm: Vm, startGfn: number, endGfn: number, attributes: bigint): Promise<void> {
  await vm.slotsLock.run(async () => {
    if (vm.attributes.isUniform(startGfn, endGfn, attributes)) return;
    vm.invalidations.begin(startGfn, endGfn);
    try {
      await vm.kernel.schedule?.('attributes-begin');
      const isPrivate = (attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE) !== 0n;
      await vm.mmuLock.run(() => vm.backend.zap(startGfn, endGfn, isPrivate ? 'shared' : 'private'));
      await vm.kernel.schedule?.('attributes');
      vm.attributes.set(startGfn, endGfn, attributes);
    } finally {
      vm.invalidations.end(startGfn, endGfn);
    }
  });
}
