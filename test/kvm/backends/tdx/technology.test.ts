/** When KVM offers TDs, and why not (Linux host rules 2.1). */
import { describe, expect, it } from 'vitest';
import { KVM } from '../../../../src/abi/kvm/ioctl.ts';
import { KVM_VM_TYPE } from '../../../../src/abi/kvm/vm-types.ts';
import { Process } from '../../../../src/kernel/process/process.ts';
import { loadKvm } from '../../../../src/kvm/load-kvm.ts';
import { createHost } from '../../../../src/lab/host.ts';
import type { MachineDescription } from '../../../../src/machine/description.ts';
import type { Machine } from '../../../../src/machine/machine.ts';
import { TDX_MACHINE } from './tdx-test-host.ts';

const HINTS = { hibernationDisabled: true };

async function why(description: MachineDescription, change: (machine: Machine) => void = () => undefined) {
  const { kernel, machine } = createHost(description, { hints: HINTS });
  await kernel.boot();
  change(machine);
  const kvm = await loadKvm(kernel);
  return kvm.unavailable.get(KVM_VM_TYPE.TDX)?.code ?? 'offered';
}

describe('TDs are offered', () => {
  it('where all is there', async () => {
    expect(await why(TDX_MACHINE)).toBe('offered');
  });

  it.each([
    ['EPT', 0x48c, 0n, 'ept-required'],
    ['accessed and dirty flags', 0x48c, 1n << 6n, 'ept-ad-required'],
    ['virtual interrupts', 0x48b, 0n, 'apicv-required'],
    ['posted interrupts', 0x48d, 0n, 'apicv-required'],
  ] as const)('not without %s', async (_what, msr, value, code) => {
    expect(await why(TDX_MACHINE, (machine) => machine.lps[0]!.wrmsr(msr, value))).toBe(code);
  });

  it('not without XSAVE', async () => {
    expect(await why(TDX_MACHINE, (machine) => machine.lps[0]!.cpuidOverrides.set('1.*', [0, 0, 0, 0]))).toBe(
      'osxsave-required',
    );
  });

  it('not where the BIOS or the module is missing', async () => {
    expect(await why({ ...TDX_MACHINE, keyIds: null })).toBe('tdx-unsupported');
    expect(await why({ ...TDX_MACHINE, module: null })).not.toBe('offered');
  });

  it.each([
    ['enumerate topology', { features0: 0n }, {}, 'tdx-no-topology'],
    ['do without other attributes', {}, { attributesFixed1: 1n }, 'tdx-no-attributes'],
    ['do without other features', {}, { xfamFixed1: 1n << 40n }, 'tdx-no-attributes'],
    ['have as many vCPUs as there are processors', {}, { maxVcpusPerTd: 3 }, 'tdx-max-vcpus'],
  ])('with a module that can %s; KVM does not load with another', async (_what, features, conf, code) => {
    const { kernel } = createHost(TDX_MACHINE, { hints: HINTS });
    await kernel.boot();
    const sysinfo = kernel.sysinfo!;
    kernel.getTdx = async () => ({
      ...sysinfo,
      features: { ...sysinfo.features, ...features },
      tdConf: { ...sysinfo.tdConf, ...conf },
    });
    await expect(loadKvm(kernel)).rejects.toMatchObject({ errno: 'EINVAL', reason: { code } });
  });

  it('unless they are turned off, and then without a word in the log', async () => {
    const { kernel } = createHost({ ...TDX_MACHINE, keyIds: null }, { hints: HINTS });
    await kernel.boot();
    await loadKvm(kernel, { tdx: null });
    expect(kernel.log.entries.some(({ prefix }) => prefix === 'kvm_intel')).toBe(false);
    const task = new Process(kernel).thread(0);
    const kvm = await task.open('/dev/kvm');
    await expect(task.ioctl(kvm, KVM.CREATE_VM, KVM_VM_TYPE.TDX)).rejects.toMatchObject({ errno: 'EINVAL' });
  });
});
