/** Exits of KVM_RUN in words: the reason, and what of the run page's union tells something. */
import { hex } from '../../abi/address.ts';
import {
  KVM_EXIT,
  KVM_EXIT_IO,
  KVM_MAP_GPA_RANGE,
  KVM_MEMORY_EXIT_FLAG_PRIVATE,
  KVM_RUN_EXIT,
  KVM_SYSTEM_EVENT,
} from '../../abi/kvm/exits.ts';
import { exitName } from '../vm/guest-vcpu.ts';
import { nameOf } from './flag-names.ts';

const DETAILS: ReadonlyMap<number, (union: Uint8Array) => string> = new Map([
  [KVM_EXIT.IO, io],
  [KVM_EXIT.MMIO, mmio],
  [KVM_EXIT.HYPERCALL, hypercall],
  [KVM_EXIT.MEMORY_FAULT, memoryFault],
  [KVM_EXIT.TDX, (union: Uint8Array) => `nr=${hex(KVM_RUN_EXIT.TDX_UNKNOWN.decode(union).nr)}`],
  [KVM_EXIT.SYSTEM_EVENT, systemEvent],
  [
    KVM_EXIT.INTERNAL_ERROR,
    (union: Uint8Array) => `suberror=${KVM_RUN_EXIT.INTERNAL_ERROR.decode(union).suberror}`,
  ],
]);

/** `KVM_EXIT_IO {out, port=0x3f8, size=1}`. @internal */
export function describeExit(reason: number, union: Uint8Array): string {
  const details = DETAILS.get(reason)?.(union);
  return `KVM_EXIT_${exitName(reason)}${details === undefined ? '' : ` {${details}}`}`;
}

function io(union: Uint8Array): string {
  const { direction, port, size } = KVM_RUN_EXIT.IO.decode(union);
  return `${direction === KVM_EXIT_IO.OUT ? 'out' : 'in'}, port=${hex(port)}, size=${size}`;
}

function mmio(union: Uint8Array): string {
  const { phys_addr, len, is_write } = KVM_RUN_EXIT.MMIO.decode(union);
  return `${is_write === 0 ? 'read' : 'write'}, phys_addr=${hex(phys_addr)}, len=${len}`;
}

function hypercall(union: Uint8Array): string {
  const { nr, args } = KVM_RUN_EXIT.HYPERCALL.decode(union);
  const [gpa = 0n, pages = 0n, attributes = 0n] = args;
  const kind = (attributes & KVM_MAP_GPA_RANGE.ENC_STAT) === 0n ? 'shared' : 'private';
  return nr === 12n ? `MAP_GPA_RANGE, gpa=${hex(gpa)}, pages=${pages}, ${kind}` : `nr=${nr}`;
}

function memoryFault(union: Uint8Array): string {
  const { gpa, size, flags } = KVM_RUN_EXIT.MEMORY_FAULT.decode(union);
  const kind = (flags & KVM_MEMORY_EXIT_FLAG_PRIVATE) === 0n ? 'shared' : 'private';
  return `gpa=${hex(gpa)}, size=${hex(size)}, ${kind}`;
}

function systemEvent(union: Uint8Array): string {
  return `type=${nameOf('KVM_SYSTEM_EVENT_', KVM_SYSTEM_EVENT, KVM_RUN_EXIT.SYSTEM_EVENT.decode(union).type)}`;
}
