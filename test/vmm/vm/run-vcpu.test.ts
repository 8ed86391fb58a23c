import { beforeEach, describe, expect, it } from 'vitest';
import { MIB, PAGE_4K } from '../../../src/abi/address.ts';
import { KVM_VM_TYPE } from '../../../src/abi/kvm/vm-types.ts';
import { startProcess } from '../../../src/kernel/process/process.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import type { GuestCpu, GuestFlow, GuestScript } from '../../../src/lab/guest/flow.ts';
import { asTdGuest } from '../../../src/lab/guest/td-kernel.ts';
import { setGuestScript } from '../../../src/lab/kvm-host.ts';
import { startVmHost, type VmHost } from '../../../src/lab/vm/vm-host.ts';
import { sampleImage } from '../../../src/vmm/sample-image.ts';
import { buildPlain, buildSwProtected } from '../../../src/vmm/vm/build-plain.ts';
import { buildTd } from '../../../src/vmm/vm/build-td.ts';
import { type MmioDevice, POWER_OFF, POWER_PORT, POWER_SWITCH } from '../../../src/vmm/vm/devices.ts';
import { addMemory, privateBytes, setPrivate, userAddressOf } from '../../../src/vmm/vm/guest-memory.ts';
import { addVcpu } from '../../../src/vmm/vm/guest-vcpu.ts';
import { GuestVm } from '../../../src/vmm/vm/guest-vm.ts';
import { runVcpu } from '../../../src/vmm/vm/run-vcpu.ts';
import { COM1, SerialPort } from '../../../src/vmm/vm/serial-port.ts';
import type { RunOptions, VcpuEnd } from '../../../src/vmm/vm/vcpu-run.ts';
import { TINY } from '../../kernel/tiny-machine.ts';

let host: VmHost;
let task: Task;

beforeEach(async () => {
  host = await startVmHost('tdx', TINY, { hints: { hibernationDisabled: true } });
  task = startProcess(host.kernel);
});

/** Runs a script on the first vCPU, with the power switch. */
async function run(vm: GuestVm, script: GuestScript, options: RunOptions = {}): Promise<VcpuEnd> {
  const [vcpu] = vm.vcpus;
  setGuestScript(host.guests, task, vcpu!.fd, script);
  return runVcpu(vm, vcpu!, { ...options, ports: [POWER_SWITCH, ...(options.ports ?? [])] });
}

function* off(cpu: GuestCpu): GuestFlow {
  yield* cpu.out(POWER_PORT, POWER_OFF, 2);
}

const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const bytes = (of: string): Uint8Array => new TextEncoder().encode(of);
const SECRET_AT = 8 * MIB;
/** The bit of a TD's addresses that says shared. */
const SHARED_ALIAS = 2 ** 47;

describe('ports', () => {
  it('that no device has read as all ones, whatever the size, and take what is written', async () => {
    const read: number[] = [];
    const end = await run(await buildPlain(task), function* (cpu) {
      yield* cpu.out(0x1234, 0xabcd, 2);
      for (const size of [1, 2, 4] as const) read.push(yield* cpu.in(0x1234, size));
      yield* off(cpu);
    });
    expect(read).toEqual([0xff, 0xffff, 0xffff_ffff]);
    expect(end).toEqual({ kind: 'power-off', text: 'the guest switched itself off' });
  });

  it('of a serial port give lines, and its registers answer', async () => {
    const lines: string[] = [];
    const registers: number[] = [];
    const serial = new SerialPort((line) => lines.push(line));
    const script: GuestScript = function* (cpu) {
      for (const byte of bytes('one\n\nlast')) {
        registers.push(yield* cpu.in(COM1 + 5));
        yield* cpu.out(COM1, byte);
      }
      // Baud rate divisor: nothing is printed.
      yield* cpu.out(COM1 + 3, 0x83);
      yield* cpu.out(COM1, 0x41);
      registers.push(yield* cpu.in(COM1 + 3), yield* cpu.in(COM1 + 1));
      yield* off(cpu);
    };
    await run(await buildPlain(task), script, { ports: [serial] });
    expect(lines).toEqual(['one', '']);
    serial.flush();
    serial.flush();
    expect(lines).toEqual(['one', '', 'last']);
    expect(registers.slice(-3)).toEqual([0x60, 0x83, 0]);
  });
});

describe('addresses outside the memory', () => {
  it('go to the device there, and read as all ones where none is', async () => {
    const written: string[] = [];
    const device: MmioDevice = {
      start: 0xfe00_0000,
      end: 0xfe00_1000,
      read: (gpa, into) => void into.fill(gpa & 0xff),
      write: (_gpa, from) => {
        written.push(text(from));
        return from[0] === 0x21 ? 'off' : 'on';
      },
    };
    const read: Uint8Array[] = [];
    const end = await run(
      await buildPlain(task),
      function* (cpu) {
        read.push((yield* cpu.read(0xfe00_0012, 2)).slice(), (yield* cpu.read(0xfd00_0000, 4)).slice());
        yield* cpu.write(0xfe00_0000, bytes('hi'));
        yield* cpu.write(0xfe00_0000, bytes('!'));
      },
      { mmio: [device] },
    );
    expect(read).toEqual([Uint8Array.of(0x12, 0x12), new Uint8Array(4).fill(0xff)]);
    expect(written).toEqual(['hi', '!']);
    expect(end.kind).toBe('power-off');
  });
});

describe('ends that the guest does not choose', () => {
  it('HLT without an interrupt controller, triple fault', async () => {
    expect(await run(await buildPlain(task), (cpu) => cpu.hlt())).toMatchObject({ kind: 'halted' });
    expect(await run(await buildPlain(task), (cpu) => cpu.tripleFault())).toMatchObject({ kind: 'shutdown' });
  });

  it('a signal, after which the vCPU goes on where it was', async () => {
    const vm = await buildPlain(task);
    let rounds = 0;
    const script: GuestScript = function* (cpu) {
      for (; rounds < 3; rounds++) {
        if (rounds === 1) task.signal();
        yield* cpu.interrupt();
      }
      yield* off(cpu);
    };
    expect(await run(vm, script)).toMatchObject({ kind: 'interrupted' });
    expect(rounds).toBeLessThan(3);
    expect(await runVcpu(vm, vm.vcpus[0]!, { ports: [POWER_SWITCH] })).toMatchObject({ kind: 'power-off' });
    expect(rounds).toBe(3);
  });

  it("a TD's report of a fatal error, with its words", async () => {
    const { vm } = await buildTd(task, sampleImage());
    const fatal: GuestScript = function* (cpu) {
      yield* cpu.vmcall(0x1_0003n, 0xbadn);
    };
    expect(await run(vm, fatal)).toMatchObject({ kind: 'system-event', text: /tdx fatal with .*0xbad/ });
  });
});

describe('a memory fault', () => {
  const useAsPrivate: GuestScript = function* (cpu) {
    yield* cpu.write(SECRET_AT, bytes('x'));
    yield* off(cpu);
  };

  /** A software-protected VM whose memory has no guest_memfd, one page of it private. */
  async function withoutFile(): Promise<GuestVm> {
    return GuestVm.build(task, KVM_VM_TYPE.SW_PROTECTED, async (vm) => {
      await addMemory(vm, { start: 0, end: 16 * MIB }, 'anonymous');
      await setPrivate(vm, { start: SECRET_AT, end: SECRET_AT + PAGE_4K }, true);
      await addVcpu(vm);
    });
  }

  it('ends the run where conversions are explicit', async () => {
    const end = await run(await withoutFile(), useAsPrivate);
    expect(end).toMatchObject({ kind: 'memory-fault', detail: SECRET_AT });
    expect(end.text).toBe(
      'KVM_RUN ended with EFAULT: the guest used private memory at guest physical address 0x800000',
    );
  });

  it('that conversion does not heal ends the run too, and not later than the second time', async () => {
    const exits: string[] = [];
    const onExit = (name: string): void => void exits.push(name);
    const end = await run(await withoutFile(), useAsPrivate, { onFault: 'convert', onExit });
    expect(end.kind).toBe('memory-fault');
    expect(exits).toEqual(['MEMORY_FAULT', 'MEMORY_FAULT']);
  });

  it("of a TD that uses a private page as shared is healed by conversion, and the private page's memory goes", async () => {
    const { vm } = await buildTd(task, sampleImage());
    const before = privateBytes(vm);
    const kept: number[] = [];
    const script: GuestScript = function* (cpu) {
      yield* cpu.accept(4 * SECRET_AT);
      yield* cpu.write(4 * SECRET_AT, bytes('mine'));
      kept.push(privateBytes(vm));
      yield* cpu.write(4 * SECRET_AT + SHARED_ALIAS, bytes('ours'));
      // OUT by TDVMCALL: the script has no #VE handler.
      yield* cpu.vmcall(30n, 2n, 1n, BigInt(POWER_PORT), BigInt(POWER_OFF));
    };
    expect(await run(vm, script, { onFault: 'convert' })).toMatchObject({ kind: 'power-off' });
    expect(kept).toEqual([before + PAGE_4K]);
    expect(privateBytes(vm)).toBe(before);
    expect(text(await task.load(userAddressOf(vm, 4 * SECRET_AT), 4))).toBe('ours');
  });
});

describe('conversions that the guest asks for', () => {
  const share: GuestScript = function* (cpu) {
    yield* cpu.write(SECRET_AT, bytes('mine'));
    yield* cpu.mapGpaRange(SECRET_AT, 1, false);
    yield* cpu.write(SECRET_AT, bytes('ours'));
    yield* off(cpu);
  };

  it('give the private page back to the host, or keep it where the VMM says so', async () => {
    for (const [discards, kept] of [
      [true, 0],
      [false, PAGE_4K],
    ] as const) {
      const vm = await buildSwProtected(task);
      await run(vm, share, { discards });
      expect(privateBytes(vm)).toBe(kept);
      expect(text(await task.load(userAddressOf(vm, SECRET_AT), 4))).toBe('ours');
      await vm.close();
    }
  });

  it('are refused for private memory that is not there, and granted for what is shared anyway', async () => {
    const answers: bigint[] = [];
    await run(await buildSwProtected(task), function* (cpu) {
      answers.push(
        yield* cpu.mapGpaRange(0xfe00_0000, 1, true),
        yield* cpu.mapGpaRange(0xfe00_0000, 1, false),
      );
      yield* off(cpu);
    });
    expect(answers).toEqual([22n, 0n]);
  });

  it('go by 2 MiB for a TD, over slots too', async () => {
    const { vm } = await buildTd(task, sampleImage());
    const answers: bigint[] = [];
    const exits: string[] = [];
    const script = asTdGuest(function* (cpu) {
      answers.push(yield* cpu.mapGpaRange(64 * MIB, 1536, false));
      yield* off(cpu);
    });
    await run(vm, script, { onExit: (name) => void exits.push(name) });
    expect(answers).toEqual([0n]);
    expect(exits).toEqual(['HYPERCALL', 'HYPERCALL', 'HYPERCALL', 'IO']);
  });
});

describe('TDVMCALLs for user space', () => {
  it('are answered: what there is, the vector of events, and that there are no quotes', async () => {
    const { vm } = await buildTd(task, sampleImage());
    const answers: (readonly bigint[])[] = [];
    const script = asTdGuest(function* (cpu) {
      for (const [func, operand] of [
        [0x1_0000n, 1n],
        [0x1_0004n, 0x40n],
        [0x1_0002n, 2n ** 47n],
      ] as const) {
        const out = yield* cpu.vmcall(func, operand, 4096n);
        answers.push([out[10]!, out[11]!]);
      }
      yield* off(cpu);
    });
    await run(vm, script);
    expect(answers[0]).toEqual([0n, 2n]);
    expect(answers[1]![0]).toBe(0n);
    expect(answers[2]![0]).toBe(0x8000_0000_0000_0003n);
  });
});
