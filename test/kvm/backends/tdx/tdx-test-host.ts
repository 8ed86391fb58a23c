/** A host that runs TDs, small and quick to boot, and what is in use on it. */
import { MIB } from '../../../../src/abi/address.ts';
import { KVM_VM_TYPE } from '../../../../src/abi/kvm/vm-types.ts';
import type { KernelPolicy } from '../../../../src/kernel/policy/kernel-policy.ts';
import type { TdxHost, TdxOptions, TdxTechnology } from '../../../../src/kvm/backends/tdx/index.ts';
import type { KvmOptions } from '../../../../src/kvm/kvm-options.ts';
import { loadKvm } from '../../../../src/kvm/load-kvm.ts';
import { ScriptedGuests } from '../../../../src/lab/guest/scripted-guests.ts';
import { createHost, type Host } from '../../../../src/lab/host.ts';
import type { MachineDescription } from '../../../../src/machine/description.ts';
import type { TdxModule } from '../../../../src/module/tdx-module.ts';
import { SMALL_MACHINE } from '../../../support/module-machine.ts';

const RAM = SMALL_MACHINE.memory.map(({ start, end }) => ({ start: Math.max(start, MIB), end }));

/** Four processors in two packages, 12 GiB. */
export const TDX_MACHINE: MachineDescription = {
  ...SMALL_MACHINE,
  e820: RAM.map((range) => ({ ...range, type: 'usable' })),
  srat: SMALL_MACHINE.memory.map(({ start, end }) => ({
    start,
    end,
    node: 0,
    proximityDomain: 0,
    hotplug: false,
    nonVolatile: false,
  })),
};

export interface TdxTestHost extends Host {
  readonly guests: ScriptedGuests;
  readonly tdx: TdxHost;
}

export interface TestHostOptions {
  readonly tdx?: Partial<TdxOptions>;
  readonly kvm?: Partial<KvmOptions>;
  readonly policy?: Partial<KernelPolicy>;
  readonly module?: string;
}

/** A host with KVM loaded and scripts for guests. */
export async function tdxHost(options: TestHostOptions = {}): Promise<TdxTestHost> {
  const { tdx = {}, kvm: kvmOptions = {}, policy = {}, module } = options;
  const host = createHost(TDX_MACHINE, { policy, module, hints: { hibernationDisabled: true } });
  await host.kernel.boot();
  const kvm = await loadKvm(host.kernel, { ...kvmOptions, tdx });
  const guests = new ScriptedGuests();
  (host.machine.seam.module as TdxModule).guestRunner = guests;
  const technology = kvm.technologies.get(KVM_VM_TYPE.TDX) as TdxTechnology;
  return { ...host, guests, tdx: technology.host! };
}

/** What a host has in use: everything must be back to the same after a TD. */
export function account({ kernel, tdx }: TdxTestHost) {
  const used = kernel.allocator.accounts().reduce((sum, node) => sum + node.used, 0);
  return {
    usedPages: used,
    keyIds: kernel.keyIds.current,
    charged: tdx.keyIdResource.current,
    objects: kernel.openObjects.all,
    countedPages: kernel.pageRefs.size,
    leaked: tdx.pages.leaked.length,
  };
}
