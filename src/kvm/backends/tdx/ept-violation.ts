/** EPT violations of a TD: faults for KVM's fault path, and two that are not (Linux host rules 2.4). */
import { hex, pfnOf } from '../../../abi/address.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import { rangeOf } from './private-mirror.ts';
import { KVM_PREFIX } from './td-call.ts';
import type { TdxBackend } from './tdx-backend.ts';
import type { TdxVcpu } from './tdx-vcpu.ts';

/** What VP.ENTER reports of a violation. @internal */
export interface EptViolation {
  readonly gpa: bigint;
  readonly qualification: bigint;
  readonly extended: bigint;
}

/** Extended exit qualification: type in bits 3:0, information in bits 63:32. */
const EXTENDED_TYPE = 0xfn;
const TYPE_ACCEPT = 1n;
const TYPE_PENDING = 6n;
const INFO_SHIFT = 32n;
const ACCEPT_LEVEL = 0x7n;
/** Exit qualification: what the access was, and bits 5:3 for what the entry allows. */
const WRITE = 1n << 1n;
const FETCH = 1n << 2n;
const ALLOWED = 0x38n;

/** Throws EIO with the VM dead for a guest that uses memory before it accepts it. @internal */
export function pageFault(
  backend: TdxBackend,
  { vcpu, td }: TdxVcpu,
  { gpa, qualification, extended }: EptViolation,
): VcpuExit {
  const shared = 1n << BigInt(td.sharedBit!);
  const address = Number(gpa & ~shared);
  if ((gpa & shared) !== 0n) {
    if ((qualification & FETCH) !== 0n) throw td.vm.bug('a TD executed shared memory', { gpa });
    const access = (qualification & WRITE) === 0n ? 'read' : 'write';
    return { kind: 'page-fault', gpa: address, isPrivate: false, access, emulate: null };
  }
  const type = extended & EXTENDED_TYPE;
  if (type === TYPE_PENDING && (qualification & ALLOWED) === 0n) {
    const text = `Guest access before accepting ${hex(address)} on vCPU ${vcpu.id}`;
    td.vm.kernel.log.write('warn', KVM_PREFIX, text, 'access-before-accept');
    throw td.vm.bug('the guest used memory before it accepted it', { gpa: address, vcpu: vcpu.id });
  }
  // A guest that accepts 4 KiB pages must find them as such.
  if (type === TYPE_ACCEPT && ((extended >> INFO_SHIFT) & ACCEPT_LEVEL) === 0n) {
    backend.keepSmall(rangeOf(pfnOf(address)));
  }
  // Private pages are always writable, and a read fault must not find a page to copy later.
  return { kind: 'page-fault', gpa: address, isPrivate: true, access: 'write', emulate: null };
}
