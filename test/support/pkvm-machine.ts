/** A small machine with the pKVM hypervisor on it, and the host's side of its hypercalls done by hand. */
import { GIB, PAGE_4K } from '../../src/abi/address.ts';
import {
  DEFAULT_IPA_BITS,
  HOST_CALL,
  HOST_VCPU,
  HOST_VM,
  HYP_VCPU_PAGES,
  SMCCC,
  signedRegister,
  stage2RootPages,
  X,
} from '../../src/abi/pkvm.ts';
import type { ValuesOf } from '../../src/abi/struct.ts';
import { PkvmHypervisor } from '../../src/hypervisor/pkvm-hypervisor.ts';
import type { HypVcpu, HypVm } from '../../src/hypervisor/vm.ts';
import type { MachineDescription } from '../../src/machine/description.ts';
import { Machine } from '../../src/machine/machine.ts';
import { SMALL_MACHINE } from './module-machine.ts';

/** Pages for the hypervisor itself. */
const CARVE_OUT_PFN = (12 * GIB) / PAGE_4K;
const CARVE_OUT_PAGES = 1024;
/** Pages that the host gives for tables at every fault that may need some. */
const TABLE_PAGES = 3;

/** A VM as the host of these tests knows it. */
export interface TestVm {
  readonly handle: number;
  readonly hostPfn: number;
  readonly vcpuPfns: readonly number[];
  /** The hypervisor's own record, to look at. */
  readonly hyp: HypVm;
}

/** @see pkvmMachine */
export class PkvmMachine {
  readonly machine: Machine;
  readonly hypervisor: PkvmHypervisor;
  #nextPfn = (5 * GIB) / PAGE_4K;

  constructor(changes: Partial<MachineDescription> = {}) {
    this.machine = new Machine({ ...SMALL_MACHINE, ...changes });
    this.hypervisor = new PkvmHypervisor(this.machine);
    this.machine.hypervisor = this.hypervisor;
  }

  get ownership() {
    return this.hypervisor.ownership;
  }

  /** Sets the hypervisor up and deprivileges the host on every processor. */
  boot(): this {
    this.hvc(HOST_CALL.pkvmInit, [CARVE_OUT_PFN, CARVE_OUT_PAGES]);
    for (let lp = 0; lp < this.machine.lps.length; lp++) this.hvc(HOST_CALL.protFinalize, [], lp);
    return this;
  }

  /** The result in x1, or the text 'not supported'. */
  hvc(call: number, args: readonly number[] = [], lp = 0): number | 'not supported' {
    const cpu = this.machine.lps[lp]!;
    cpu.regs.q[X.x0] = BigInt(call);
    for (let i = 0; i < 4; i++) cpu.regs.q[X.x1 + i] = BigInt(args[i] ?? 0);
    cpu.hvc();
    return signedRegister(cpu.regs, X.x0) === SMCCC.success
      ? signedRegister(cpu.regs, X.x1)
      : 'not supported';
  }

  /** First of `pages` fresh pages of the host. */
  take(pages = 1): number {
    const pfn = this.#nextPfn;
    this.#nextPfn += pages;
    return pfn;
  }

  /** Every page handed out so far. */
  get taken(): { readonly start: number; readonly end: number } {
    return { start: (5 * GIB) / PAGE_4K, end: this.#nextPfn };
  }

  load(pfn: number, length = PAGE_4K): Uint8Array {
    return this.machine.lps[0]!.load(pfn * PAGE_4K, length);
  }

  store(pfn: number, bytes: Uint8Array): void {
    this.machine.lps[0]!.store(pfn * PAGE_4K, bytes);
  }

  /** Lends the hypervisor a page with these contents. */
  lend(bytes: Uint8Array): number {
    const pfn = this.take();
    this.store(pfn, bytes);
    this.hvc(HOST_CALL.hostShareHyp, [pfn]);
    return pfn;
  }

  createVm(isProtected: boolean, vcpus = 1): TestVm {
    const handle = this.hvc(HOST_CALL.reserveVm) as number;
    const hostPfn = this.lend(
      HOST_VM.encode({
        handle: BigInt(handle),
        isProtected: isProtected ? 1n : 0n,
        ipaBits: BigInt(DEFAULT_IPA_BITS),
        vcpus: BigInt(vcpus),
      }),
    );
    const rootPfn = this.take(stage2RootPages(DEFAULT_IPA_BITS));
    this.expect(0, this.hvc(HOST_CALL.initVm, [hostPfn, this.take(), rootPfn]));
    const vcpuPfns = Array.from({ length: vcpus }, (_, index) => {
      const pfn = this.lend(HOST_VCPU.encode({ index: BigInt(index) }));
      this.expect(0, this.hvc(HOST_CALL.initVcpu, [handle, pfn, this.take(HYP_VCPU_PAGES)]));
      return pfn;
    });
    return { handle, hostPfn, vcpuPfns, hyp: this.hypervisor.table.get(handle)! };
  }

  vcpu(vm: TestVm, index = 0): HypVcpu {
    return vm.hyp.vcpus[index]!;
  }

  /** Does something with a vCPU loaded on LP `lp`. */
  loaded<T>(vm: TestVm, work: () => T, index = 0, lp = 0): T {
    this.expect(0, this.hvc(HOST_CALL.vcpuLoad, [vm.handle, index], lp));
    try {
      return work();
    } finally {
      this.expect(0, this.hvc(HOST_CALL.vcpuPut, [], lp));
    }
  }

  /** Lists pages for the tables of a vCPU. */
  topUp(vm: TestVm, index = 0, pages = TABLE_PAGES): void {
    const { memcacheHead, memcachePages } = HOST_VCPU.offsets;
    const at = vm.vcpuPfns[index]! * PAGE_4K;
    const [lp] = this.machine.lps;
    let head = word(lp!.load(at + memcacheHead, 8));
    let count = word(lp!.load(at + memcachePages, 8));
    for (let i = 0; i < pages; i++) {
      const pfn = this.take();
      lp!.store(pfn * PAGE_4K, fromWord(head));
      head = BigInt(pfn * PAGE_4K);
      count++;
    }
    lp!.store(at + memcacheHead, fromWord(head));
    lp!.store(at + memcachePages, fromWord(count));
  }

  donate(vm: TestVm, pfn: number, gfn: number, pages = 1): number | 'not supported' {
    if (this.vcpu(vm).memcache.length < TABLE_PAGES) this.topUp(vm);
    return this.loaded(vm, () => this.hvc(HOST_CALL.hostDonateGuest, [pfn, gfn, pages]));
  }

  share(vm: TestVm, pfn: number, gfn: number, pages = 1, prot = 7): number | 'not supported' {
    if (this.vcpu(vm).memcache.length < TABLE_PAGES) this.topUp(vm);
    return this.loaded(vm, () => this.hvc(HOST_CALL.hostShareGuest, [pfn, gfn, pages, prot]));
  }

  /** Tears a VM down; returns the pages that came back by the list. */
  destroy(vm: TestVm): readonly number[] {
    this.expect(0, this.hvc(HOST_CALL.startTeardownVm, [vm.handle]));
    for (const { gfn, pages } of [...vm.hyp.stage2.leaves()]) {
      const call = vm.hyp.isProtected ? HOST_CALL.reclaimDyingGuestPage : HOST_CALL.hostUnshareGuest;
      this.expect(0, this.hvc(call, [vm.handle, gfn, pages]));
    }
    this.expect(0, this.hvc(HOST_CALL.finalizeTeardownVm, [vm.handle]));
    const returned: number[] = [];
    const { teardownHead } = this.hostVm(vm);
    for (let head = Number(teardownHead); head !== 0; head = Number(word(this.load(head / PAGE_4K, 8)))) {
      returned.push(head / PAGE_4K);
    }
    for (const pfn of [vm.hostPfn, ...vm.vcpuPfns]) this.expect(0, this.hvc(HOST_CALL.hostUnshareHyp, [pfn]));
    return returned;
  }

  hostVm(vm: TestVm): ValuesOf<typeof HOST_VM> {
    return HOST_VM.decode(this.load(vm.hostPfn, HOST_VM.bytes));
  }

  hostVcpu(vm: TestVm, index = 0): ValuesOf<typeof HOST_VCPU> {
    return HOST_VCPU.decode(this.load(vm.vcpuPfns[index]!, HOST_VCPU.bytes));
  }

  /** Changes the host's half of a vCPU's page. */
  patchVcpu(vm: TestVm, values: Partial<ValuesOf<typeof HOST_VCPU>>, index = 0): void {
    const bytes = this.load(vm.vcpuPfns[index]!, HOST_VCPU.bytes);
    HOST_VCPU.patch(bytes, values);
    this.store(vm.vcpuPfns[index]!, bytes);
  }

  private expect(wanted: number, got: number | string): void {
    if (got !== wanted) throw new Error(`a hypercall gave ${got} instead of ${wanted}`);
  }
}

/** Ready for VMs. */
export function pkvmMachine(changes: Partial<MachineDescription> = {}): PkvmMachine {
  return new PkvmMachine(changes).boot();
}

function word(bytes: Uint8Array): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
}

function fromWord(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}
