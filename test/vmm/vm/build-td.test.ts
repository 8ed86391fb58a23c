import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { GIB, MIB, PAGE_2M, PAGE_4K } from '../../../src/abi/address.ts';
import { KernelError } from '../../../src/abi/errno.ts';
import { startProcess } from '../../../src/kernel/process/process.ts';
import type { LoadOptions } from '../../../src/kvm/load-kvm.ts';
import { asTdGuest } from '../../../src/lab/guest/td-kernel.ts';
import { setGuestScript } from '../../../src/lab/kvm-host.ts';
import { accountOf } from '../../../src/lab/vm/account.ts';
import { guestPlatform } from '../../../src/lab/vm/platforms.ts';
import { runVmExample } from '../../../src/lab/vm/vm-example.ts';
import { startVmHost, type VmHost } from '../../../src/lab/vm/vm-host.ts';
import { measureImage } from '../../../src/vmm/measure-image.ts';
import { mrtdOf } from '../../../src/vmm/mrtd.ts';
import { sampleImage } from '../../../src/vmm/sample-image.ts';
import { readTdvf, type TdvfImage } from '../../../src/vmm/tdvf/image.ts';
import { buildTd } from '../../../src/vmm/vm/build-td.ts';
import { POWER_OFF, POWER_PORT, POWER_SWITCH } from '../../../src/vmm/vm/devices.ts';
import { runVcpu } from '../../../src/vmm/vm/run-vcpu.ts';
import { TINY } from '../../kernel/tiny-machine.ts';
import { imageWith } from '../arbitrary-image.ts';
import { OVMF } from './ovmf.ts';

function tdxHost(kvm: LoadOptions = {}): Promise<VmHost> {
  return startVmHost('tdx', TINY, { hints: { hibernationDisabled: true }, kvm });
}

/** Expects a build to fail in one sentence and to leave nothing behind, then the next one to succeed. */
async function refused(host: VmHost, build: () => Promise<unknown>): Promise<KernelError> {
  const before = accountOf(host);
  const error: unknown = await build().then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(KernelError);
  expect(accountOf(host)).toEqual(before);
  expect((error as KernelError).reason.text).toMatch(/^\S.*\S$/);
  return error as KernelError;
}

describe('MRTD of a TD that KVM built', () => {
  it('is what measuring the sample image foretells', async () => {
    const host = await tdxHost();
    const { measurement } = await runVmExample(host, 'tdx', () => undefined);
    expect(measurement?.measured).toBe(measureImage(sampleImage()).mrtd?.get('one-pass'));
  });

  it.skipIf(OVMF === undefined)(
    "is what measuring Debian's OVMF foretells (skipped without one)",
    async () => {
      const image = readTdvf('OVMF.fd', readFileSync(OVMF!));
      const host = await tdxHost();
      const { measurement, ok } = await runVmExample(host, 'tdx', () => undefined, { image });
      expect(measurement?.measured).toBe(measureImage(image).mrtd?.get('one-pass'));
      expect(ok).toBe(true);
    },
  );

  it('is that of the other page order where KVM adds all pages first', async () => {
    const host = await tdxHost({ tdx: { pageOrder: 'two-pass' } });
    const { measurement } = await runVmExample(host, 'tdx', () => undefined);
    expect(measurement?.measured).toBe(measureImage(sampleImage()).mrtd?.get('two-pass'));
    expect(measurement?.measured).not.toBe(measurement?.predicted);
  });

  it('does not depend on memory size, number of vCPUs or the VMM’s own pages', async () => {
    const host = await tdxHost();
    const task = startProcess(host.kernel);
    const small = await buildTd(task, sampleImage(), { memoryBytes: 64 * MIB });
    const large = await buildTd(task, sampleImage(), { memoryBytes: 16 * GIB, vcpus: 4 });
    expect(mrtdOf(large.layout.regions, 'one-pass')).toEqual(mrtdOf(small.layout.regions, 'one-pass'));
    expect(large.memory.map(({ name }) => name)).toEqual(['low RAM', 'firmware', 'high RAM']);
    await task.exit();
  });
});

describe('a TD that cannot be built', () => {
  it('needs a KeyID, and says so when all are in use', async () => {
    const host = await tdxHost();
    const before = accountOf(host);
    const task = startProcess(host.kernel);
    const tds = [];
    for (let i = 0; i < host.kernel.keyIds.capacity; i++) tds.push(await buildTd(task, sampleImage()));
    const error = await refused(host, () => buildTd(task, sampleImage()));
    expect(error.errno).toBe('ENOSPC');
    expect(error.message).toMatch(/^KVM_TDX_INIT_VM: .*KeyID/);
    await tds.pop()!.vm.close();
    await buildTd(task, sampleImage());
    await task.exit();
    expect(accountOf(host)).toEqual(before);
  });

  it('has at most as many vCPUs as the host has processors', async () => {
    const host = await tdxHost();
    const task = startProcess(host.kernel);
    const error = await refused(host, () => buildTd(task, sampleImage(), { vcpus: 5 }));
    expect(error.errno).toBe('EINVAL');
    expect(error.message).toMatch(/the VM has 4 vCPUs and cannot have more/);
    await task.exit();
  });

  it('fails at whatever allocation memory runs out, in one sentence, and leaves nothing behind', async () => {
    const host = await tdxHost();
    const { allocator } = host.kernel;
    let allocations = 0;
    allocator.fault = () => {
      allocations++;
      return false;
    };
    const task = startProcess(host.kernel);
    await (await buildTd(task, sampleImage(), { vcpus: 2 })).vm.close();
    const failures: string[] = [];
    for (let nth = 1; nth <= allocations; nth++) {
      let count = 0;
      allocator.fault = () => ++count === nth;
      const error = await refused(host, () => buildTd(task, sampleImage(), { vcpus: 2 }));
      failures.push(error.errno);
    }
    allocator.fault = null;
    expect(allocations).toBeGreaterThan(50);
    // Pages of user space's own that cannot be made are EFAULT.
    expect(new Set(failures)).toEqual(new Set(['ENOMEM', 'EFAULT']));
    await buildTd(task, sampleImage());
    await task.exit();
  });

  it('is not begun with an image that has a fatal finding', async () => {
    const host = await tdxHost();
    const before = accountOf(host);
    const [firmware, ...others] = sampleImage().sections;
    const image: TdvfImage = imageWith([{ ...firmware!, fileOffset: 0x10_0000 }, ...others]);
    const task = startProcess(host.kernel);
    await expect(buildTd(task, image)).rejects.toThrow(/no TD can be made of it/);
    await task.exit();
    expect(accountOf(host)).toEqual(before);
  });

  it('needs memory where the image has its sections', async () => {
    const host = await tdxHost();
    const task = startProcess(host.kernel);
    await expect(buildTd(task, sampleImage(), { memoryBytes: MIB })).rejects.toThrow(/give the TD more/);
    await expect(buildTd(task, sampleImage(), { memoryBytes: MIB + 1 })).rejects.toThrow(/multiple of 4 KiB/);
    await task.exit();
  });
});

describe('INIT_MEM_REGION', () => {
  it('is taken up again after signals, and measures the same', async () => {
    const host = await tdxHost();
    const { kernel } = host;
    const task = startProcess(kernel);
    let signals = 0;
    // A signal before every third allocation: private pages are allocated one by one.
    let allocations = 0;
    kernel.allocator.fault = (purpose) => {
      if (purpose === 'guest_memfd' && ++allocations % 3 === 0) {
        signals++;
        task.signal();
      }
      return false;
    };
    const { vm } = await buildTd(task, sampleImage());
    kernel.allocator.fault = null;
    expect(signals).toBeGreaterThan(5);
    let measured = '';
    const { wrap, measurement } = guestPlatform('tdx', host);
    const script = wrap(function* (cpu) {
      measured = yield* measurement!(cpu, 32 * MIB);
      yield* cpu.out(POWER_PORT, POWER_OFF, 2);
    });
    setGuestScript(host.guests, task, vm.vcpus[0]!.fd, script);
    await runVcpu(vm, vm.vcpus[0]!, { ports: [POWER_SWITCH] });
    expect(measured).toBe(measureImage(sampleImage()).mrtd?.get('one-pass'));
    await vm.close();
    await task.exit();
  });
});

describe('a TD with 64 GiB of memory', () => {
  it('takes pages for what its guest touches, tables and control structures, and nothing else', async () => {
    const host = await tdxHost();
    const before = accountOf(host);
    const task = startProcess(host.kernel);
    const { vm } = await buildTd(task, sampleImage(), { memoryBytes: 64 * GIB });
    const built = accountOf(host).pages - before.pages;
    const ranges = 16;
    const touched = 2048;
    const script = asTdGuest(function* (cpu) {
      for (let i = 0; i < touched; i++) {
        const range = 4 * GIB + (i % ranges) * 1024 * PAGE_2M;
        yield* cpu.write(range + Math.floor(i / ranges) * PAGE_4K, Uint8Array.of(1));
      }
      yield* cpu.out(POWER_PORT, POWER_OFF, 2);
    });
    setGuestScript(host.guests, task, vm.vcpus[0]!.fd, script);
    expect((await runVcpu(vm, vm.vcpus[0]!, { ports: [POWER_SWITCH] })).kind).toBe('power-off');
    const taken = accountOf(host).pages - before.pages - built;
    // A table of the lowest level for each range, one above for each GiB of them, and those in between.
    expect(taken).toBeGreaterThanOrEqual(touched);
    expect(taken).toBeLessThanOrEqual(touched + 3 * ranges);
    expect(built).toBeLessThanOrEqual(100);
    await vm.close();
    await task.exit();
    expect(accountOf(host)).toEqual(before);
  });
});
