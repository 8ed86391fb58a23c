/** Kernels that the conformance cases run on: the model with each backend, and the one that runs the tests. */
import { accessSync, constants } from 'node:fs';
import { release } from 'node:os';
import { expect } from 'vitest';
import { KVM_VM_TYPE } from '../../src/abi/kvm/vm-types.ts';
import { startProcess } from '../../src/kernel/process/process.ts';
import type { Task } from '../../src/kernel/process/task.ts';
import type { LoadOptions } from '../../src/kvm/load-kvm.ts';
import { createHost, type Host, type HostOptions } from '../../src/lab/host.ts';
import { type KvmHost, startKvm } from '../../src/lab/kvm-host.ts';
import { genoaMachine } from '../../src/lab/machines/genoa.ts';
import type { MachineDescription } from '../../src/machine/description.ts';
import { TINY } from '../kernel/tiny-machine.ts';
import { isLinux, LinuxSystemCalls } from '../support/linux-system-calls.ts';
import { type Quirks, Session } from './session.ts';

/** The modelled kernel behind a session, for what user space cannot do: attach guests, look at accounts. */
export interface ModelSide {
  readonly host: Host;
  readonly kvmHost: KvmHost;
  readonly task: Task;
}

export interface Started {
  readonly session: Session;
  /** Null on the real kernel. */
  readonly model: ModelSide | null;
  /** Everything that the session had is back. */
  readonly expectBalanced: () => Promise<void>;
}

export interface Subject {
  readonly name: string;
  /** Why it cannot run here; null where it can. */
  readonly skipped: string | null;
  /** With module parameters of KVM, where it is the model's. */
  readonly start: (options?: LoadOptions) => Promise<Started>;
}

function model(
  name: string,
  vmType: number,
  description: MachineDescription,
  options: HostOptions = {},
): Subject {
  const start = async (kvmOptions: LoadOptions = {}): Promise<Started> => {
    const host = createHost(description, options);
    await host.kernel.boot();
    const kvmHost = await startKvm(host, kvmOptions);
    const before = accounts(host);
    const task = startProcess(host.kernel);
    return {
      session: new Session(task, vmType, 2),
      model: { host, kvmHost, task },
      expectBalanced: async () => {
        await task.exit();
        expect(accounts(host)).toEqual(before);
      },
    };
  };
  return { name, skipped: null, start };
}

function accounts({ kernel }: Host): unknown {
  kernel.allocator.audit();
  const used = kernel.allocator.accounts().reduce((sum, node) => sum + node.used, 0);
  return { used, objects: kernel.openObjects.all, keyIds: kernel.keyIds.current };
}

const TDX_OFF: MachineDescription = { ...TINY, keyIds: null, seamrr: null, module: null };
const LINUX_PATH = '/dev/kvm';

function noKvm(): string | null {
  if (!isLinux) return 'not Linux on x86-64';
  try {
    accessSync(LINUX_PATH, constants.R_OK | constants.W_OK);
    return null;
  } catch {
    return `${LINUX_PATH} cannot be opened`;
  }
}

/** The kernel that runs the tests is older than this major version. */
function isBefore(major: number): boolean {
  return Number.parseInt(release(), 10) < major;
}

const QUIRKS: Quirks = {
  isReal: true,
  bindsAtLastOffset: isBefore(7),
  fileOverlapIsInvalid: isBefore(7),
  policiesOfMappings: isBefore(7),
};

const skipped = noKvm();

/** The kernel that runs the tests. */
export const LINUX: Subject = {
  name: skipped === null ? 'the real kernel' : `the real kernel, skipped: ${skipped}`,
  skipped,
  start: async () => ({
    session: new Session(new LinuxSystemCalls(), KVM_VM_TYPE.DEFAULT, 1, QUIRKS),
    model: null,
    expectBalanced: async () => {},
  }),
};

/** VMs of the default type on a host without TDX. */
export const PLAIN = model('plain', KVM_VM_TYPE.DEFAULT, TDX_OFF);
export const SW_PROTECTED = model('sw-protected', KVM_VM_TYPE.SW_PROTECTED, TDX_OFF);
export const TDX = model('tdx', KVM_VM_TYPE.TDX, TINY);
export const SNP = model('snp', KVM_VM_TYPE.SNP, genoaMachine({ nodes: 2 }));
export const PKVM = model('pkvm', KVM_VM_TYPE.ARM_PROTECTED, TDX_OFF, { hypervisor: 'pkvm' });

export const SUBJECTS: readonly Subject[] = [PLAIN, SW_PROTECTED, TDX, SNP, PKVM, LINUX];
