/** Hosts on which VMs of a technology run: machine, kernel, KVM. */

import type { KernelConfigHints } from '../../kernel/kernel-config.ts';
import type { BackendName } from '../../kvm/backend.ts';
import type { LoadOptions } from '../../kvm/load-kvm.ts';
import type { MachineDescription } from '../../machine/description.ts';
import { DEFAULT_HOST, EMBEDDED_HOSTS } from '../../survey/embedded/hosts.ts';
import { createHost, type Host } from '../host.ts';
import { type KvmHost, startKvm } from '../kvm-host.ts';
import { genoaMachine } from '../machines/genoa.ts';

/** A technology by its name. @public */
export type VmBackend = BackendName;

/** Every technology, from none to most. @public */
export const VM_BACKENDS: readonly VmBackend[] = ['plain', 'sw-protected', 'tdx', 'snp', 'pkvm'];

/** A booted host with KVM and scripts for guests. @public */
export interface VmHost extends Host, KvmHost {}

/** @public */
export interface VmHostOptions {
  readonly hints?: KernelConfigHints;
  /** Module parameters of KVM beside those that the technology needs. */
  readonly kvm?: LoadOptions;
}

/** No TDX: other software is to run below the kernel. */
const TDX_OFF = { keyIds: null, seamrr: null, module: null, cmrs: [] } as const;

/** Boots `description`, or a machine that has the technology, and loads KVM. @public */
export async function startVmHost(
  backend: BackendName,
  description: MachineDescription | null = null,
  options: VmHostOptions = {},
): Promise<VmHost> {
  const isPkvm = backend === 'pkvm';
  const embedded = EMBEDDED_HOSTS.get(DEFAULT_HOST)!;
  const chosen = description ?? (backend === 'snp' ? genoaMachine() : embedded.machine);
  const host = createHost(isPkvm ? { ...chosen, ...TDX_OFF } : chosen, {
    hints: options.hints ?? (description === null ? embedded.kernel : {}),
    ...(isPkvm && { hypervisor: 'pkvm' as const }),
  });
  await host.kernel.boot();
  // A protected VM of pKVM has one file for private and shared pages.
  const parameters = isPkvm ? { inPlaceConversion: true } : {};
  return { ...host, ...(await startKvm(host, { ...parameters, ...options.kvm })) };
}
