import { beforeEach, describe, expect, it } from 'vitest';
import { MIB } from '../../../src/abi/address.ts';
import { startProcess } from '../../../src/kernel/process/process.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import type { GuestException, GuestScript } from '../../../src/lab/guest/flow.ts';
import { asTdGuest } from '../../../src/lab/guest/td-kernel.ts';
import { setGuestScript } from '../../../src/lab/kvm-host.ts';
import { startVmHost, type VmHost } from '../../../src/lab/vm/vm-host.ts';
import { sampleImage } from '../../../src/vmm/sample-image.ts';
import { buildTd } from '../../../src/vmm/vm/build-td.ts';
import { POWER_OFF, POWER_PORT, POWER_SWITCH } from '../../../src/vmm/vm/devices.ts';
import { runVcpu } from '../../../src/vmm/vm/run-vcpu.ts';
import { TINY } from '../../kernel/tiny-machine.ts';

/** MSR_POWER_CTL. */
const MSR_KEPT = 0x1fc;

let host: VmHost;
let task: Task;

beforeEach(async () => {
  host = await startVmHost('tdx', TINY, { hints: { hibernationDisabled: true } });
  task = startProcess(host.kernel);
});

/** Runs a script in a TD of the sample image until it switches the TD off. */
async function inTd(script: GuestScript): Promise<void> {
  const { vm } = await buildTd(task, sampleImage());
  const [vcpu] = vm.vcpus;
  const whole: GuestScript = function* (cpu) {
    yield* script(cpu);
    yield* cpu.out(POWER_PORT, POWER_OFF, 2);
  };
  setGuestScript(host.guests, task, vcpu!.fd, asTdGuest(whole));
  expect(await runVcpu(vm, vcpu!, { ports: [POWER_SWITCH] })).toMatchObject({ kind: 'power-off' });
}

describe('a script as a TD', () => {
  it('asks the host for what made an instruction fault, and goes on with the answer', async () => {
    const got: unknown[] = [];
    await inTd(function* (cpu) {
      // A leaf of hypervisors, which the module leaves to the host; an MSR that KVM keeps; a port without a device.
      got.push(yield* cpu.cpuid(0x4000_0001));
      yield* cpu.wrmsr(MSR_KEPT, 0x1234_5678_9abcn);
      got.push(yield* cpu.rdmsr(MSR_KEPT));
      got.push(yield* cpu.in(0x1234, 2));
    });
    expect(got).toEqual([[0, 0, 0, 0], 0x1234_5678_9abcn, 0xffff]);
  });

  it('accepts memory before its first use, and uses what the VMM added as it is', async () => {
    const read: string[] = [];
    await inTd(function* (cpu) {
      const firmware = sampleImage().sections[0]!;
      read.push(new TextDecoder().decode(yield* cpu.read(firmware.address, 18)));
      // Across the border of two pages, neither of them accepted.
      yield* cpu.write(40 * MIB - 2, new TextEncoder().encode('wide'));
      read.push(new TextDecoder().decode(yield* cpu.read(40 * MIB - 2, 4)));
    });
    expect(read).toEqual(['tdxlab sample TDVF', 'wide']);
  });

  it('loses a page by sharing it, and gets it back empty', async () => {
    const read: number[] = [];
    await inTd(function* (cpu) {
      const page = 40 * MIB;
      yield* cpu.write(page, Uint8Array.of(1));
      read.push(Number(yield* cpu.mapGpaRange(page, 1, false)), (yield* cpu.read(page, 1))[0]!);
      yield* cpu.write(page, Uint8Array.of(2));
      read.push(Number(yield* cpu.mapGpaRange(page, 1, true)), (yield* cpu.read(page, 1))[0]!);
    });
    expect(read).toEqual([0, 0, 0, 0]);
  });

  it('hears of other exceptions itself', async () => {
    const vectors: number[] = [];
    await inTd(function* (cpu) {
      try {
        yield* cpu.technology('pvalidate', 4);
      } catch (error) {
        vectors.push((error as GuestException).vector);
      }
    });
    expect(vectors).toEqual([6]);
  });
});
