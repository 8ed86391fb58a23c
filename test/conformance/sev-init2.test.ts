/** sev_init2_tests: which VMs KVM_SEV_INIT2 takes, and which flags and VMSA features (Linux host rules 4.6). */
import { beforeEach, describe, expect, it } from 'vitest';
import { KVM_CAP } from '../../src/abi/kvm/capabilities.ts';
import { KVM } from '../../src/abi/kvm/ioctl.ts';
import { KVM_SEV, KVM_SEV_CMD, KVM_SEV_INIT, KVM_X86_SEV_VMSA_FEATURES } from '../../src/abi/kvm/sev.ts';
import { KVM_DEVICE_ATTR } from '../../src/abi/kvm/structs.ts';
import { KVM_VM_TYPE } from '../../src/abi/kvm/vm-types.ts';
import { MAP, PROT } from '../../src/abi/system-call-flags.ts';
import { startProcess } from '../../src/kernel/process/process.ts';
import type { Task } from '../../src/kernel/process/task.ts';
import { createHost } from '../../src/lab/host.ts';
import { startKvm } from '../../src/lab/kvm-host.ts';
import { genoaMachine } from '../../src/lab/machines/genoa.ts';

let task: Task;
let kvm: number;
let buffer: number;

beforeEach(async () => {
  const host = createHost(genoaMachine());
  await host.kernel.boot();
  await startKvm(host);
  task = startProcess(host.kernel);
  kvm = await task.open('/dev/kvm');
  const flags = MAP.PRIVATE | MAP.ANONYMOUS;
  buffer = await task.mmap({ lengthBytes: 4096, prot: PROT.READ | PROT.WRITE, flags });
});

async function outcome(call: Promise<number>): Promise<string> {
  return call.then(
    () => 'ok',
    ({ errno }) => errno,
  );
}

async function init2(
  vmType: number,
  values: Parameters<typeof KVM_SEV_INIT.encode>[0] = {},
): Promise<string> {
  const vm = await task.ioctl(kvm, KVM.CREATE_VM, vmType);
  await task.store(buffer, KVM_SEV_INIT.encode(values));
  const command = KVM_SEV_CMD.encode({ id: KVM_SEV.INIT2, data: BigInt(buffer) });
  const result = await outcome(task.ioctl(vm, KVM.MEMORY_ENCRYPT_OP, command));
  await task.close(vm);
  return result;
}

async function supportedFeatures(): Promise<bigint> {
  const attribute = KVM_DEVICE_ATTR.encode({ ...KVM_X86_SEV_VMSA_FEATURES, addr: BigInt(buffer) });
  expect(await task.ioctl(kvm, KVM.HAS_DEVICE_ATTR, attribute)).toBe(0);
  await task.ioctl(kvm, KVM.GET_DEVICE_ATTR, attribute);
  return new DataView((await task.load(buffer, 8)).slice().buffer).getBigUint64(0, true);
}

describe('sev_init2_tests', () => {
  it('test_vm_types: SNP VMs are taken, others are EINVAL', async () => {
    expect(await task.ioctl(kvm, KVM.CHECK_EXTENSION, KVM_CAP.VM_TYPES)).toSatisfy(
      (types: number) => (types & (1 << KVM_VM_TYPE.SNP)) !== 0,
    );
    expect(await init2(KVM_VM_TYPE.SNP)).toBe('ok');
    expect(await init2(KVM_VM_TYPE.DEFAULT)).toBe('EINVAL');
    expect(await init2(KVM_VM_TYPE.SW_PROTECTED)).toBe('EINVAL');
  });

  it('test_flags: every bit is EINVAL', async () => {
    for (let bit = 0; bit < 32; bit++)
      expect(await init2(KVM_VM_TYPE.SNP, { flags: 2 ** bit })).toBe('EINVAL');
  });

  it('test_features: the bits that the attribute reports are taken, all others are EINVAL', async () => {
    expect(await task.ioctl(kvm, KVM.CHECK_EXTENSION, KVM_CAP.SYS_ATTRIBUTES)).toBe(1);
    const supported = await supportedFeatures();
    expect(supported).not.toBe(0n);
    for (let bit = 0n; bit < 64n; bit++) {
      const expected = (supported & (1n << bit)) === 0n ? 'EINVAL' : 'ok';
      expect(await init2(KVM_VM_TYPE.SNP, { vmsa_features: 1n << bit }), `bit ${bit}`).toBe(expected);
    }
    const other = KVM_DEVICE_ATTR.encode({ group: 1, attr: 1n, addr: BigInt(buffer) });
    expect(await outcome(task.ioctl(kvm, KVM.GET_DEVICE_ATTR, other))).toBe('ENXIO');
  });
});
