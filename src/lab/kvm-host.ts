/** KVM on a host: loaded into its kernel, with scripts for guests. */
import type { Task } from '../kernel/process/task.ts';
import type { Kvm } from '../kvm/kvm.ts';
import { type LoadOptions, loadKvm } from '../kvm/load-kvm.ts';
import { VcpuFile } from '../kvm/vcpu-file.ts';
import { TdxModule } from '../module/tdx-module.ts';
import type { GuestScript } from './guest/flow.ts';
import { ScriptedGuests } from './guest/scripted-guests.ts';
import type { Host } from './host.ts';

/** @public */
export interface KvmHost {
  readonly kvm: Kvm;
  /** Execute the guests of every technology. */
  readonly guests: ScriptedGuests;
}

/** Loads KVM into the booted kernel of `host` and has its guests run scripts. @public */
export async function startKvm(host: Host, options: LoadOptions = {}): Promise<KvmHost> {
  const { machine, kernel } = host;
  const guests = new ScriptedGuests();
  machine.guestCode = guests.code;
  const { module } = machine.seam;
  if (module instanceof TdxModule) module.guestRunner = guests;
  return { kvm: await loadKvm(kernel, options), guests };
}

/** Gives the vCPU behind descriptor `fd` its script. Throws Error for another kind of file. @public */
export function setGuestScript(guests: ScriptedGuests, task: Task, fd: number, script: GuestScript): void {
  guests.set(guestAddress(task, fd), script);
}

/** Address by which the machine knows the vCPU behind descriptor `fd`. Throws Error for another kind of file. @public */
export function guestAddress(task: Task, fd: number): number {
  const { object } = task.process.files.get(fd);
  if (!(object instanceof VcpuFile)) throw new Error(`descriptor ${fd} is no vCPU`);
  return object.vcpu.vm.backend.guestAddress(object.vcpu);
}
