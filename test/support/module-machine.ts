/** A small machine with a TDX module on it, and calls into the module that go through the instruction. */
import { GIB } from '../../src/abi/address.ts';
import { RAX, REGISTER_NAMES, type RegisterName } from '../../src/abi/registers.ts';
import type { MachineDescription } from '../../src/machine/description.ts';
import { Machine } from '../../src/machine/machine.ts';
import { loadModule } from '../../src/module/load-module.ts';
import { findRelease, type ModuleRelease } from '../../src/module/releases.ts';
import type { TdxModule } from '../../src/module/tdx-module.ts';

/** Four processors in two packages, 12 GiB, 32 private KeyIDs from 32. */
export const SMALL_MACHINE: MachineDescription = {
  name: 'small',
  cpuModel: 'sapphire-rapids',
  physicalAddressBits: 52,
  processors: [0, 1, 128, 129].map((apicId) => ({
    apicId,
    package: Math.floor(apicId / 128),
    node: Math.floor(apicId / 128),
    present: true,
  })),
  memory: [
    { start: 0, end: 3 * GIB, node: 0, kind: 'ram', state: 'present' },
    { start: 4 * GIB, end: 13 * GIB, node: 0, kind: 'ram', state: 'present' },
  ],
  e820: [],
  srat: [],
  cmrs: [
    { start: 0, end: 3 * GIB },
    { start: 4 * GIB, end: 13 * GIB },
  ],
  keyIds: { mktme: 31, tdx: 32 },
  seamrr: { start: 15 * GIB, end: 15 * GIB + GIB / 4 },
  module: '1.5.25',
  seamLoader: null,
};

/** A machine, its module, and SEAMCALL. */
export interface ModuleMachine {
  readonly machine: Machine;
  readonly module: TdxModule;
  /** Executes a leaf on LP `lp` and returns the registers that are not zero afterwards. */
  readonly call: (
    leaf: number,
    operands?: Partial<Record<RegisterName, bigint>>,
    lp?: number,
  ) => Partial<Record<RegisterName, bigint>>;
  /** The same, RAX only. */
  readonly status: (leaf: number, operands?: Partial<Record<RegisterName, bigint>>, lp?: number) => bigint;
}

/** Powers a machine on and loads the module of `release`, which is at SYSINIT_PENDING. */
export function moduleMachine(
  changes: Partial<MachineDescription> = {},
  release: ModuleRelease = findRelease('1.5.25')!,
): ModuleMachine {
  const machine = new Machine({ ...SMALL_MACHINE, ...changes });
  const module = loadModule(machine, release);
  const call: ModuleMachine['call'] = (leaf, operands = {}, lp = 0) => {
    const cpu = machine.lps[lp]!;
    cpu.vmxOperation = true;
    REGISTER_NAMES.forEach((name, i) => {
      cpu.regs.q[i] = operands[name] ?? 0n;
    });
    cpu.regs.q[RAX] = BigInt(leaf);
    cpu.seamcall();
    const left: Partial<Record<RegisterName, bigint>> = {};
    REGISTER_NAMES.forEach((name, i) => {
      if (cpu.regs.q[i] !== 0n || name === 'rax') left[name] = cpu.regs.q[i]!;
    });
    return left;
  };
  return { machine, module, call, status: (leaf, operands, lp) => call(leaf, operands, lp).rax! };
}
