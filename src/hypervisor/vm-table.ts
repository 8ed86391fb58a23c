/** The hypervisor's table of VMs, by the handles under which the host speaks of them. */
import { ERRNO } from '../abi/errno.ts';
import type { HypVm } from './vm.ts';

/** No handle is small, so that one that was never set is found out. */
const FIRST_HANDLE = 0x1000;
/** VMs there can be: VMIDs are 8 bits wide, and 0 is the host's. */
const MAX_VMS = 255;
const RESERVED = 'reserved';

/** @public */
export class VmTable {
  readonly #entries = new Map<number, HypVm | typeof RESERVED>();

  /** A handle for a VM that is to be made; -ENOMEM when all are in use. */
  reserve(): number {
    for (let handle = FIRST_HANDLE; handle < FIRST_HANDLE + MAX_VMS; handle++) {
      if (this.#entries.has(handle)) continue;
      this.#entries.set(handle, RESERVED);
      return handle;
    }
    return -ERRNO.ENOMEM;
  }

  /** Gives up a handle no VM was made for; -EINVAL for any other. */
  unreserve(handle: number): number {
    if (this.#entries.get(handle) !== RESERVED) return -ERRNO.EINVAL;
    this.#entries.delete(handle);
    return 0;
  }

  /** 0 when a VM can be made under this handle. */
  checkInsert(handle: number): number {
    const entry = this.#entries.get(handle);
    if (entry === undefined) return -ERRNO.EINVAL;
    return entry === RESERVED ? 0 : -ERRNO.EEXIST;
  }

  insert(vm: HypVm): void {
    this.#entries.set(vm.handle, vm);
  }

  get(handle: number): HypVm | undefined {
    const entry = this.#entries.get(handle);
    return entry === RESERVED ? undefined : entry;
  }

  remove(handle: number): void {
    this.#entries.delete(handle);
  }

  /** Handles in use, reserved ones included. */
  get size(): number {
    return this.#entries.size;
  }

  *vms(): Generator<HypVm> {
    for (const entry of this.#entries.values()) if (entry !== RESERVED) yield entry;
  }
}
