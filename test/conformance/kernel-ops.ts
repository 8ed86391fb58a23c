/** Random programs of system calls on KVM's files and on guest_memfd, and how to run one: what the model and a real kernel are given. */
import fc from 'fast-check';
import { KernelError } from '../../src/abi/errno.ts';
import { KVM_CAP } from '../../src/abi/kvm/capabilities.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import {
  GUEST_MEMFD_FLAG,
  KVM_ENABLE_CAP,
  KVM_MEM,
  KVM_MEMORY_ATTRIBUTES,
  KVM_MP_STATE,
  KVM_USERSPACE_MEMORY_REGION,
} from '../../src/abi/kvm/structs.ts';
import { FALLOC_FL, MAP, MPOL, PROT } from '../../src/abi/system-call-flags.ts';
import { UserFault } from '../../src/kernel/process/system-calls.ts';
import { PAGE, type Quirks, type Session } from './session.ts';

/** One system call. Numbers of VMs, files and maps are taken modulo how many there are. */
export type Op =
  | { readonly op: 'vm' }
  | { readonly op: 'file'; readonly vm: number; readonly size: bigint; readonly flags: bigint }
  | { readonly op: 'dup'; readonly file: number }
  | { readonly op: 'close'; readonly what: 'vm' | 'file' | 'vcpu'; readonly index: number }
  | { readonly op: 'vcpu'; readonly vm: number; readonly id: bigint }
  | { readonly op: 'irqchip'; readonly vm: number }
  | {
      readonly op: 'enableCap';
      readonly vm: number;
      readonly cap: number;
      readonly value: bigint;
      readonly flags: number;
    }
  | {
      readonly op: 'attributes';
      readonly vm: number;
      readonly address: bigint;
      readonly size: bigint;
      readonly attributes: bigint;
      readonly flags: bigint;
    }
  | { readonly op: 'mpState'; readonly vcpu: number; readonly state: number }
  | { readonly op: 'mapVcpu'; readonly vcpu: number; readonly flags: number; readonly prot: number }
  | {
      readonly op: 'ioctl';
      readonly on: 'kvm' | 'vm' | 'file' | 'vcpu';
      readonly index: number;
      readonly request: number;
    }
  | { readonly op: 'fstat' | 'read' | 'pread' | 'pwrite'; readonly file: number }
  | { readonly op: 'ftruncate'; readonly file: number; readonly size: bigint }
  | {
      readonly op: 'fallocate';
      readonly file: number;
      readonly mode: number;
      readonly offset: bigint;
      readonly length: bigint;
    }
  | {
      readonly op: 'mmap';
      readonly file: number;
      readonly flags: number;
      readonly prot: number;
      readonly length: number;
      readonly offset: bigint;
    }
  | { readonly op: 'munmap'; readonly map: number }
  | { readonly op: 'store'; readonly map: number; readonly at: number; readonly value: number }
  | { readonly op: 'load'; readonly map: number; readonly at: number }
  | { readonly op: 'mbind'; readonly map: number; readonly pages: number; readonly mode: number }
  | { readonly op: 'policy'; readonly map: number; readonly at: number }
  | {
      readonly op: 'region';
      readonly vm: number;
      readonly slot: number;
      readonly flags: number;
      readonly gpa: bigint;
      readonly size: bigint;
      readonly file: number;
      readonly offset: bigint;
      readonly shift: number;
      /** By KVM_SET_USER_MEMORY_REGION, which knows no files. */
      readonly old: boolean;
    };

/** Result of an op: an errno, 'signal', or what the call told. */
export type Outcome = string;

const pages = (most: number): fc.Arbitrary<bigint> =>
  fc.bigInt({ min: 0n, max: BigInt(most) }).map((n) => n * BigInt(PAGE));
/** Mostly whole pages; now and then something that no call should take. */
const offset = fc.oneof(
  { weight: 8, arbitrary: pages(6) },
  { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: BigInt(3 * PAGE) }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      -1n,
      -BigInt(PAGE),
      1n << 40n,
      (1n << 62n) - 1n,
      1n << 62n,
      (1n << 63n) - 1n,
      -(1n << 63n),
    ),
  },
);
const small = fc.nat(5);
const MODES = [
  FALLOC_FL.KEEP_SIZE,
  FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE,
  FALLOC_FL.KEEP_SIZE | FALLOC_FL.PUNCH_HOLE,
  FALLOC_FL.PUNCH_HOLE,
  FALLOC_FL.KEEP_SIZE | FALLOC_FL.ZERO_RANGE,
  FALLOC_FL.COLLAPSE_RANGE,
  FALLOC_FL.INSERT_RANGE,
  0,
  // Linux knows WRITE_ZEROES since 6.17; nobody knows the last.
  0x1000,
];
const { MMAP, INIT_SHARED } = GUEST_MEMFD_FLAG;
const SHARED_FILE = MMAP | INIT_SHARED;

/** Requests of one kind of file or of none, on whatever file; their argument is 1, which none of them takes. */
const STRAY_REQUESTS = [
  KVM.GET_API_VERSION,
  KVM.GET_VCPU_MMAP_SIZE,
  KVM.RUN,
  KVM.GET_REGS,
  KVM.SET_MEMORY_ATTRIBUTES2,
  // KVM knows no such request; the last is of terminals.
  0xaeff,
  0x5401,
];
/** Runnable, those of an APIC but for the start-up IPI, which comes to something else, and others. */
const MP_STATES = [0, 1, 2, 3, 9, 5, 10, 0xff];
const CAPS: readonly (readonly [cap: number, value: bigint])[] = [
  [KVM_CAP.SPLIT_IRQCHIP, 24n],
  [KVM_CAP.SPLIT_IRQCHIP, 4096n],
  [KVM_CAP.SPLIT_IRQCHIP, 4097n],
  [KVM_CAP.EXIT_HYPERCALL, 1n << 12n],
  [KVM_CAP.EXIT_HYPERCALL, 1n << 11n],
  [KVM_CAP.MAX_VCPUS, 4n],
  [KVM_CAP.GUEST_MEMFD, 1n],
  [9999, 0n],
];

const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 1, arbitrary: fc.constant<Op>({ op: 'vm' }) },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('file' as const),
      vm: small,
      size: fc.oneof({ weight: 6, arbitrary: pages(6) }, { weight: 1, arbitrary: offset }),
      flags: fc.constantFrom(0n, MMAP, INIT_SHARED, SHARED_FILE, SHARED_FILE, SHARED_FILE, 4n, 1n << 63n),
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('dup' as const), file: small }) },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('close' as const),
      what: fc.constantFrom('vm' as const, 'file' as const, 'vcpu' as const),
      index: small,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('vcpu' as const),
      vm: small,
      id: fc.oneof(
        { weight: 6, arbitrary: fc.bigInt({ min: 0n, max: 3n }) },
        { weight: 1, arbitrary: fc.constantFrom(4095n, 4096n, 1n << 31n, 1n << 32n, -1n, -(1n << 63n)) },
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('irqchip' as const), vm: small }) },
  {
    weight: 2,
    arbitrary: fc
      .record({
        op: fc.constant('enableCap' as const),
        vm: small,
        pair: fc.constantFrom(...CAPS),
        flags: fc.constantFrom(0, 0, 0, 1),
      })
      .map(({ pair: [cap, value], ...rest }) => ({ ...rest, cap, value })),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('attributes' as const),
      vm: small,
      address: offset,
      size: offset,
      attributes: fc.constantFrom(0n, 0n, 8n, 1n),
      flags: fc.constantFrom(0n, 0n, 0n, 1n),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('mpState' as const),
      vcpu: small,
      state: fc.constantFrom(...MP_STATES),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('mapVcpu' as const),
      vcpu: small,
      flags: fc.constantFrom(MAP.SHARED, MAP.SHARED, MAP.PRIVATE, 0),
      prot: fc.constantFrom(PROT.READ | PROT.WRITE, PROT.READ, PROT.READ | PROT.EXEC),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('ioctl' as const),
      on: fc.constantFrom('kvm' as const, 'vm' as const, 'file' as const, 'vcpu' as const),
      index: small,
      request: fc.constantFrom(...STRAY_REQUESTS),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constantFrom('fstat', 'read', 'pread', 'pwrite'), file: small }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('ftruncate' as const), file: small, size: offset }) },
  {
    weight: 8,
    arbitrary: fc.record({
      op: fc.constant('fallocate' as const),
      file: small,
      mode: fc.constantFrom(...MODES),
      offset,
      length: offset,
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constant('mmap' as const),
      file: small,
      flags: fc.constantFrom(MAP.SHARED, MAP.SHARED, MAP.SHARED, MAP.PRIVATE, 0),
      prot: fc.constantFrom(PROT.READ | PROT.WRITE, PROT.READ | PROT.WRITE, PROT.READ, PROT.READ | PROT.EXEC),
      length: fc.constantFrom(0, 1, PAGE, 2 * PAGE, 3 * PAGE + 5, 6 * PAGE),
      offset: fc.oneof({ weight: 6, arbitrary: pages(4) }, { weight: 1, arbitrary: fc.constant(1n) }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('munmap' as const), map: small }) },
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('store' as const),
      map: small,
      at: fc.nat(7 * PAGE),
      value: fc.integer({ min: 1, max: 255 }),
    }),
  },
  { weight: 6, arbitrary: fc.record({ op: fc.constant('load' as const), map: small, at: fc.nat(7 * PAGE) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('mbind' as const),
      map: small,
      pages: fc.integer({ min: 1, max: 4 }),
      mode: fc.constantFrom(MPOL.DEFAULT, MPOL.BIND, MPOL.INTERLEAVE, 999),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ op: fc.constant('policy' as const), map: small, at: fc.nat(3 * PAGE) }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      op: fc.constant('region' as const),
      vm: small,
      slot: fc.constantFrom(0, 1, 2, 3, 0, 1, 2, 3, 0xffff, 0x1_0000),
      flags: fc.oneof(
        { weight: 12, arbitrary: fc.constant(KVM_MEM.GUEST_MEMFD) },
        { weight: 6, arbitrary: fc.constantFrom(0, 0, 1, 2, 3, 5, 6, 8) },
      ),
      gpa: fc.oneof({ weight: 15, arbitrary: pages(6) }, { weight: 1, arbitrary: offset }),
      size: fc.oneof({ weight: 15, arbitrary: pages(4) }, { weight: 1, arbitrary: offset }),
      file: small,
      offset: fc.oneof({ weight: 15, arbitrary: pages(4) }, { weight: 1, arbitrary: offset }),
      shift: fc.constantFrom(0, 0, 0, 0, 0, 1, PAGE),
      old: fc.constantFrom(false, false, true),
    }),
  },
);

/** A program begins with a VM and a file that user space can map, so that most of it does something. */
export const program: fc.Arbitrary<readonly Op[]> = fc
  .array(op, { minLength: 1, maxLength: 40 })
  .map((ops): readonly Op[] => [
    { op: 'vm' },
    { op: 'file', vm: 0, size: BigInt(4 * PAGE), flags: SHARED_FILE },
    { op: 'mmap', file: 0, flags: MAP.SHARED, prot: PROT.READ | PROT.WRITE, length: 6 * PAGE, offset: 0n },
    ...ops,
  ]);

/** A descriptor that nothing has. */
const CLOSED = -1;
const ANONYMOUS_BYTES = 16 * PAGE;
/** Pages of a vCPU's mapping that model and kernel both have: the kernel has a ring of coalesced MMIO behind. */
const RUN_PAGES = 2;

/** Runs programs and tells what came of each call. */
export class Interpreter {
  readonly #s: Session;
  readonly #like: Quirks;
  readonly #vms: number[] = [];
  readonly #files: number[] = [];
  readonly #vcpus: number[] = [];
  readonly #maps: { readonly at: number; readonly length: number }[] = [];
  #memory = 0;

  /** `like` says how the kernel that it is compared with differs from Linux 7.2. */
  constructor(session: Session, like: Quirks = {}) {
    this.#s = session;
    this.#like = like;
  }

  async run(ops: readonly Op[]): Promise<readonly Outcome[]> {
    this.#memory = await this.#s.anonymous(ANONYMOUS_BYTES);
    const outcomes: Outcome[] = [];
    for (const each of ops) outcomes.push(await this.#outcome(each));
    await this.#end();
    return outcomes;
  }

  async #outcome(each: Op): Promise<Outcome> {
    try {
      return await this.#perform(each);
    } catch (error) {
      if (error instanceof KernelError) return this.#errno(error);
      // A real kernel is asked by way of process_vm_readv, which does not tell one signal from the other.
      if (error instanceof UserFault) return 'signal';
      throw error;
    }
  }

  #errno({ errno, reason }: KernelError): Outcome {
    const { fileOverlapIsInvalid = false } = this.#like;
    return fileOverlapIsInvalid && reason.code === 'gmem-range-bound' ? 'EINVAL' : errno;
  }

  async #perform(each: Op): Promise<Outcome> {
    const { calls } = this.#s;
    switch (each.op) {
      case 'vm':
        this.#vms.push(await this.#s.createVm());
        return 'ok';
      case 'file':
        this.#files.push(
          await this.#s.createFile(pick(this.#vms, each.vm), BigInt.asUintN(64, each.size), each.flags),
        );
        return 'ok';
      case 'dup':
        this.#files.push(this.#s.opened(calls.dup(this.#file(each.file))));
        return 'ok';
      case 'close': {
        const table = this.#descriptors[each.what];
        const index = each.index % table.length;
        const fd = table[index] ?? CLOSED;
        table[index] = CLOSED;
        await this.#s.close(fd);
        return 'ok';
      }
      case 'vcpu': {
        const vm = pick(this.#vms, each.vm);
        this.#vcpus.push(this.#s.opened(await calls.ioctl(vm, KVM.CREATE_VCPU, each.id)));
        return 'ok';
      }
      case 'irqchip':
        return `${await calls.ioctl(pick(this.#vms, each.vm), KVM.CREATE_IRQCHIP)}`;
      case 'enableCap': {
        const { cap, flags, value } = each;
        const request = KVM_ENABLE_CAP.encode({ cap, flags, args: [value, 0n, 0n, 0n] });
        return `${await calls.ioctl(pick(this.#vms, each.vm), KVM.ENABLE_CAP, request)}`;
      }
      case 'attributes': {
        const { attributes, flags } = each;
        const [address, size] = [BigInt.asUintN(64, each.address), BigInt.asUintN(64, each.size)];
        const request = KVM_MEMORY_ATTRIBUTES.encode({ address, size, attributes, flags });
        return `${await calls.ioctl(pick(this.#vms, each.vm), KVM.SET_MEMORY_ATTRIBUTES, request)}`;
      }
      case 'mpState': {
        const request = KVM_MP_STATE.encode({ mp_state: each.state });
        return `${await calls.ioctl(pick(this.#vcpus, each.vcpu), KVM.SET_MP_STATE, request)}`;
      }
      case 'mapVcpu':
        return this.#map(pick(this.#vcpus, each.vcpu), each.flags, each.prot, RUN_PAGES * PAGE, 0n);
      case 'ioctl': {
        const fd = each.on === 'kvm' ? await this.#s.kvm() : pick(this.#descriptors[each.on], each.index);
        return `${await calls.ioctl(fd, each.request, 1)}`;
      }
      case 'fstat': {
        const { sizeBytes, blockSizeBytes, links } = calls.fstat(this.#file(each.file));
        return `${sizeBytes} ${blockSizeBytes} ${links}`;
      }
      case 'read':
        return `${(await calls.read(this.#file(each.file), 1)).length}`;
      case 'pread':
        return `${(await calls.pread(this.#file(each.file), 1, 0)).length}`;
      case 'pwrite':
        return `${await calls.pwrite(this.#file(each.file), Uint8Array.of(1), 0)}`;
      case 'ftruncate':
        await calls.ftruncate(this.#file(each.file), each.size);
        return 'ok';
      case 'fallocate':
        await calls.fallocate(this.#file(each.file), each.mode, each.offset, each.length);
        return 'ok';
      case 'mmap':
        return this.#map(this.#file(each.file), each.flags, each.prot, each.length, each.offset);
      case 'munmap': {
        const [map] = this.#maps.splice(each.map % Math.max(1, this.#maps.length), 1);
        if (map !== undefined) await calls.munmap(map.at, map.length);
        return 'ok';
      }
      case 'store': {
        const at = this.#address(each.map, each.at);
        if (at !== null) await calls.store(at, Uint8Array.of(each.value));
        return 'ok';
      }
      case 'load': {
        const at = this.#address(each.map, each.at);
        return at === null ? 'ok' : `${(await calls.load(at, 1))[0]}`;
      }
      case 'mbind': {
        const at = this.#address(each.map, 0);
        if (at !== null) calls.mbind(at, PAGE, each.mode, each.mode === MPOL.DEFAULT ? [] : [0]);
        return 'ok';
      }
      case 'policy': {
        const at = this.#address(each.map, each.at);
        return at === null ? 'ok' : `${calls.getMempolicy(at).mode}`;
      }
      case 'region':
        return `${await this.#region(each)}`;
    }
  }

  get #descriptors() {
    return { vm: this.#vms, file: this.#files, vcpu: this.#vcpus };
  }

  async #map(fd: number, flags: number, prot: number, length: number, at: bigint): Promise<Outcome> {
    const start = await this.#s.calls.mmap({ lengthBytes: length, prot, flags, fd, offset: at });
    this.#maps.push({ at: start, length: Math.ceil(length / PAGE) * PAGE });
    return 'ok';
  }

  #region(region: Op & { readonly op: 'region' }): Promise<number> {
    const vm = pick(this.#vms, region.vm);
    const request = {
      slot: region.slot,
      flags: region.flags,
      guest_phys_addr: BigInt.asUintN(64, region.gpa),
      memory_size: BigInt.asUintN(64, region.size),
      userspace_addr: BigInt(this.#memory + region.shift),
      guest_memfd: this.#file(region.file) >>> 0,
      guest_memfd_offset: BigInt.asUintN(64, region.offset),
    };
    if (!region.old) return this.#s.setRegion(vm, request);
    const bytes = KVM_USERSPACE_MEMORY_REGION.encode(request);
    return this.#s.calls.ioctl(vm, KVM.SET_USER_MEMORY_REGION, bytes);
  }

  #file(index: number): number {
    return pick(this.#files, index);
  }

  /** An address in the map or a little behind its part of the file; null where there is no map or the map ends. */
  #address(index: number, at: number): number | null {
    const map = this.#maps[index % Math.max(1, this.#maps.length)];
    return map === undefined ? null : map.at + (at % map.length);
  }

  async #end(): Promise<void> {
    for (const { at, length } of this.#maps) await this.#s.calls.munmap(at, length);
    await this.#s.calls.munmap(this.#memory, ANONYMOUS_BYTES);
    await this.#s.end();
  }
}

function pick(descriptors: readonly number[], index: number): number {
  return descriptors.length === 0 ? CLOSED : descriptors[index % descriptors.length]!;
}
